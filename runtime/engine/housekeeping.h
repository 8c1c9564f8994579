// Housekeeping: what is done to checkpoints that are committed already, on the I/O pool and beside
// training: second names, publishing, removal, scores and pins in the catalog.
//
// Every call returns at once and is made on the train context; the outcome comes back through the
// inbox as an event: a second name as CheckpointCommitted or CheckpointFailed, the others as
// CheckpointPublished and CheckpointRemoved. Tasks start in the order of the calls and may overlap.
// Owned by the Checkpointer, which drains it.
#pragma once

#include <stdlib.h>  // before Asio, whose allocator depends on the library's macros

#include <asio/any_io_executor.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "millrace/events/checkpoint_events.h"
#include "millrace/io/checkpoint_store.h"
#include "millrace/runtime/async/suspend.h"
#include "millrace/runtime/async/task.h"

namespace millrace {

class Inbox;
class IoPool;
struct RunContext;

class Housekeeping {
 public:
  // `failed` is told of what a person asked for and does not get: a second name, a publication.
  using OnFailure = std::function<void(const std::string& path, const std::string& error)>;
  Housekeeping(RunContext& run, OnFailure failed);
  ~Housekeeping();
  Housekeeping(const Housekeeping&) = delete;
  Housekeeping& operator=(const Housekeeping&) = delete;

  // Once per train(), and when it is over and all is idle. Calls outside of that throw Error.
  void start(asio::any_io_executor train, Inbox& inbox, IoPool& io);
  void end();

  // `row` describes the new name; `source` is committed. When it is not the file of row.save_id any
  // more, that is a failure. A failed row of the catalog is written once more.
  void link(CheckpointStore& store, std::string source, CheckpointRow row,
            std::map<std::string, double> scores);
  // The same for a name that cannot be given: `row.error` says why.
  void refuse_link(CheckpointRow row);
  void publish(CheckpointStore& store, std::string name, std::vector<std::string> keys);
  // Removes each file, once no second name and no publication is being made of it, and publishes a
  // CheckpointRemoved for it, with the error where that failed. Its bytes are freed on the I/O
  // pool; of all saves, only one that found the disk full waits for that.
  void retire(CheckpointStore& store, std::vector<std::string> names);
  // Failures are warnings: the checkpoint itself is there.
  void score(CheckpointStore& store, std::string save_id, std::map<std::string, double> scores);
  void pin(CheckpointStore& store, std::string name, bool pinned);

  bool retiring(const CheckpointStore& store, const std::string& name) const;
  bool removing() const noexcept;
  // Calls of retire() that had something to remove, so far. When it has moved since a save began,
  // there may be room for it, though nothing is being removed any more.
  std::uint64_t removals_begun() const noexcept { return removals_begun_; }
  Task<> join_removals();
  bool idle() const noexcept;
  Task<> join();

 private:
  struct Io;
  Io& io() const;
  class Use;  // keeps a file from being removed while a task reads it
  Task<> until_unused(const std::string& name);
  Task<> link_task(CheckpointStore* store, std::string source, std::shared_ptr<CheckpointRow> row,
                   std::map<std::string, double> scores, std::unique_ptr<Use> use);
  Task<> publish_task(CheckpointStore* store, std::shared_ptr<PublishedRow> row,
                      std::vector<std::string> keys, std::unique_ptr<Use> use);
  Task<> retire_task(CheckpointStore* store, std::vector<std::string> names);
  void change_catalog(std::function<void()> change);
  Task<> catalog_task();
  Task<> linked(std::shared_ptr<CheckpointRow> row);
  Task<> published(std::shared_ptr<PublishedRow> row);
  Task<> removed(std::shared_ptr<RemovedRow> row);

  RunContext& run_;
  const OnFailure failed_;
  std::unique_ptr<Io> io_;
  std::multiset<std::string> in_use_;
  std::multiset<std::pair<const CheckpointStore*, std::string>> retiring_;
  std::vector<Resumption> removers_;           // that wait for one of those
  std::deque<std::function<void()>> changes_;  // of catalogs, the first one under way
  std::uint64_t removals_begun_ = 0;
};

}  // namespace millrace
