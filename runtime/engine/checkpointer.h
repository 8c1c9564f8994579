// The checkpointer: takes a consistent view of the run and makes it durable while training goes on.
//
//   save()  train context   wait for the save in flight -> capture (handles, small copies)
//           -> BeforeSaveCheckpoint -> stage -> CheckpointCaptured -> return
//   job     I/O pool        pickle the tree, write what is staged, commit, last_checkpoint
//   then    inbox           CheckpointCommitted or CheckpointFailed, at the loop's next yield
//
// One per runner. It knows how a checkpoint is made, not when: that is CheckpointHook. A failed
// save retires nothing; training goes on, and train() throws at its end.
#pragma once

#include <asio/any_io_executor.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "millrace/io/checkpoint_store.h"
#include "millrace/io/state_record.h"
#include "millrace/runtime/async/task.h"
#include "millrace/runtime/engine/staging.h"

namespace millrace {

class HookList;
class Inbox;
class IoPool;
struct RunContext;

struct SaveRequest {
  std::string filename;  // epoch_3.pth
  std::string reason;    // interval, last, stop, on_demand
  StageMode mode = StageMode::kAuto;
  bool save_optimizer = true;
  bool save_param_scheduler = true;
  std::int64_t epoch = 0;  // finished ones, as meta has them
  std::int64_t iter = 0;
  CheckpointStore* store = nullptr;
};

class Checkpointer {
 public:
  // `default_storage` null: the work dir. The others outlive the checkpointer.
  Checkpointer(RunContext& run, Staging& staging, const HookList& hooks,
               std::unique_ptr<Storage> default_storage);
  ~Checkpointer();
  Checkpointer(const Checkpointer&) = delete;
  Checkpointer& operator=(const Checkpointer&) = delete;

  // Hook::attach(): the store below `out_dir`, the default one when that is empty. As in the
  // reference, an out_dir other than the work dir gets the work dir's last component appended.
  CheckpointStore& open_store(const std::filesystem::path& out_dir);
  // Where an automatic resume looks: every opened store; in a run that does not save, the default
  // one.
  std::vector<CheckpointStore*> stores();

  // Train context, once per train(): binds the executors, prepares every store on the I/O pool (a
  // work dir that cannot be written fails here) and finds the generation to continue from.
  Task<> start(asio::any_io_executor train, Inbox& inbox, IoPool& io);
  // Before training: sizes the arena, so that the first save costs no more than later ones.
  void reserve();

  // Returns when training may go on. Waits for a save in flight first.
  Task<> save(SaveRequest request);
  // Removes files on the I/O pool; each becomes a CheckpointRemoved event.
  void retire(CheckpointStore& store, std::vector<std::string> names);
  // After the last drain(): other runs may write to the directories again.
  void release();
  // Until nothing is in flight and every completion has been published, also when a hook throws on
  // the way; then the first such error.
  Task<> drain();

  // The last save that was committed or is in flight counts as this state's file.
  std::int64_t last_saved_iter() const noexcept { return last_saved_iter_; }
  // After a resume: the state equals this file's, and the next save is its child.
  void continue_from(const CheckpointIdentity& identity);
  struct Failure {
    std::string path, error;
  };
  // The failed saves of this train(), oldest first.
  const std::vector<Failure>& failures() const noexcept { return failures_; }

 private:
  struct Job;
  Task<> capture(std::shared_ptr<Job> job);
  Task<> write(std::shared_ptr<Job> job);
  Task<> publish_outcome(std::shared_ptr<Job> job);
  Task<> remove(CheckpointStore* store, std::vector<std::string> names);
  std::string data_position(const SaveRequest& request) const;
  StageMode resolve(StageMode mode) const;
  void lock_directories();

  struct Io;  // what start() binds
  RunContext& run_;
  Staging& staging_;
  const HookList& hooks_;
  std::set<std::filesystem::path> directories_;  // that this run writes checkpoints to
  std::vector<std::unique_ptr<Storage>> storages_;
  std::vector<std::unique_ptr<CheckpointStore>> stores_;
  std::vector<CheckpointStore*> opened_;
  Storage* work_storage_ = nullptr;     // where last_checkpoint lives
  Storage* default_storage_ = nullptr;  // where checkpoints live unless out_dir says otherwise
  std::unique_ptr<Io> io_;

  std::string parent_id_;         // of the last durable save
  std::uint64_t generation_ = 0;  // the highest seen
  std::int64_t last_saved_iter_ = -1;
  std::vector<Failure> failures_;
};

}  // namespace millrace
