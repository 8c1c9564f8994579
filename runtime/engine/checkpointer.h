// The checkpointer: takes a consistent view of the run and makes it durable while training goes on.
//
//   save()   train context   what is in flight decides (on_busy) -> the losses so far have arrived
//            from the device -> capture (handles, small copies) -> BeforeSaveCheckpoint -> stage ->
//            CheckpointCaptured -> return
//   write    I/O pool        pickle the tree, write what is staged, commit, catalog row,
//                            last_checkpoint
//   then     inbox           CheckpointCommitted, Failed or Discarded, at the loop's next yield
//
// One save is written at a time. With on_busy = replace one more may wait, captured, in an arena of
// its own: the newest wins. What is done to committed files is Housekeeping's part, when to save is
// CheckpointHook's. A failed save retires nothing; training goes on, and train() throws at its end.
//
// One per runner; train context.
#pragma once

#include <stdlib.h>  // before Asio, whose allocator depends on the library's macros

#include <asio/any_io_executor.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "millrace/io/checkpoint_store.h"
#include "millrace/io/state_record.h"
#include "millrace/runtime/async/task.h"
#include "millrace/runtime/engine/housekeeping.h"
#include "millrace/runtime/engine/run_stores.h"
#include "millrace/runtime/engine/save_job.h"
#include "millrace/runtime/staging/staging.h"

namespace millrace {

class EventWaiter;
class FileOps;
class HookList;
class Inbox;
class IoPool;
struct RunContext;

class Checkpointer {
 public:
  // `default_storage` and `files`: see RunStores. The others outlive the checkpointer.
  Checkpointer(RunContext& run, Staging& staging, const HookList& hooks,
               std::unique_ptr<Storage> default_storage, std::shared_ptr<FileOps> files);
  ~Checkpointer();
  Checkpointer(const Checkpointer&) = delete;
  Checkpointer& operator=(const Checkpointer&) = delete;

  // Hook::attach(): the store below `out_dir`, or on a storage of the hook's own, see RunStores.
  CheckpointStore& open_store(const std::filesystem::path& out_dir) {
    return stores_.open(out_dir);
  }
  CheckpointStore& open_store(std::shared_ptr<Storage> storage) {
    return stores_.open(std::move(storage));
  }
  // Hook::attach(), before any save with OnBusy::kReplace: staging gets its second arena.
  void allow_replace() noexcept { replaces_ = true; }
  // Where an automatic resume looks: every opened store; in a run that does not save, the default
  // one.
  std::vector<CheckpointStore*> stores() { return stores_.all(); }

  // Once per train(): binds the executors, prepares every store on the I/O pool (a work dir that
  // cannot be written fails here) and finds the generation to continue from.
  // `waiter` is for the strategy's device, null on the host. What is given outlives end().
  Task<> start(asio::any_io_executor train, Inbox& inbox, IoPool& io, EventWaiter* waiter);
  // Before training: sizes the arena, so that the first save costs no more than later ones.
  void reserve();

  // Returns when training may go on: true when the state was captured, false when the save was
  // skipped because another one is in flight.
  Task<bool> save(SaveRequest request);
  // The second name `row.name` for the file `source`, at once when that is committed, else with its
  // commit; it also keeps `source` from being replaced. CheckpointCommitted or Failed with `row`.
  void link(CheckpointStore& store, const std::string& source, CheckpointRow row,
            std::map<std::string, double> scores);
  // Publishes a file of the store, at once or with its commit. CheckpointPublished.
  void publish(CheckpointStore& store, const std::string& name, std::vector<std::string> keys);
  // Whether the save failed, was discarded or replaced, and no hook has been told so yet.
  bool lost(std::string_view save_id) const;
  // The save of that name, if one is in flight or waits, can no longer be replaced.
  void protect(const CheckpointStore& store, const std::string& name);
  // Removes files; each becomes a CheckpointRemoved event.
  void retire(CheckpointStore& store, std::vector<std::string> names);
  // Scores of a state, for the catalog; at once or with its commit, as link().
  void score(CheckpointStore& store, std::string save_id, std::map<std::string, double> scores);
  void pin(CheckpointStore& store, const std::string& name, bool pinned);
  // Whether retire() was called for the file, and is not done with it.
  bool retiring(const CheckpointStore& store, const std::string& name) const;

  // After the last drain(): unbinds what start() bound. Other runs may write to the directories
  // again; until the next start(), what needs the disk is an error.
  void end();
  // Until nothing is in flight and every completion has been published, also when a hook throws on
  // the way; then the first such error.
  Task<> drain();

  // The newest state that has a file, or has one on the way: who it is, and its iteration; -1 when
  // there is none. After a resume, the file resumed from.
  const CheckpointIdentity& newest() const noexcept { return newest_; }
  std::int64_t last_saved_iter() const noexcept {
    return newest_.save_id.empty() ? -1 : newest_.iter;
  }
  // After a resume: the state equals this file's, and the next save is its child.
  void continue_from(const CheckpointIdentity& identity);

  struct Failure {
    std::string path, error;
  };
  // What was asked for in this train() and not done, oldest first.
  const std::vector<Failure>& failures() const noexcept { return failures_; }
  struct Counts {
    std::uint64_t committed = 0, failed = 0, skipped = 0, replaced = 0, discarded = 0;
  };
  const Counts& counts() const noexcept { return counts_; }  // of this train()

 private:
  using JobPtr = std::shared_ptr<SaveJob>;
  Task<bool> make_room(const SaveRequest& request);
  Task<> skip(const SaveRequest& request);
  Task<> replace_waiting();
  Task<> read_losses();
  Task<> capture(JobPtr job);
  Task<> write(JobPtr job);
  Task<> write_with_retry(JobPtr job);
  Task<> publish_outcome(JobPtr job, bool committed);
  void finish(const JobPtr& job);
  void start_writing(JobPtr job);
  void after_commit(const JobPtr& job, std::function<void()> action);  // no job: at once
  JobPtr find_job(const CheckpointStore& store, const std::string& name) const;
  void fail(const std::string& path, const std::string& error);
  std::string data_position(const SaveRequest& request) const;
  StageMode resolve(StageMode mode) const;

  struct Io;  // what start() binds
  RunContext& run_;
  Staging& staging_;
  const HookList& hooks_;
  Housekeeping housekeeping_;
  RunStores stores_;
  std::unique_ptr<Io> io_;
  bool told_streaming_ = false;
  bool replaces_ = false;  // some hook saves with OnBusy::kReplace

  JobPtr writing_, waiting_;
  std::uint64_t generation_ = 0;  // the highest seen
  CheckpointIdentity newest_, durable_;
  std::set<std::string, std::less<>> lost_;  // save ids, until it is told
  std::vector<Failure> failures_;
  Counts counts_;
};

}  // namespace millrace
