// CheckpointStore: the checkpoint files of one run, on top of Storage.
//
//   data      epoch_3.pth, iter_1000.pth, best_acc_epoch_2.pth, epoch_3-0a1b2c3d.pth (published)
//   work_dir  last_checkpoint: the path of the newest file, as text without a newline
//
// `data` and `work_dir` are often one storage. Calls block; make them on I/O threads. The store has
// no state of its own: calls for different names may overlap, but of two commits at a time either
// may have the last word in the pointer, so the caller makes them one after the other.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/io/state_record.h"
#include "millrace/io/storage.h"
#include "millrace/runtime/async/error.h"

namespace millrace {

class CheckpointStore {
 public:
  static constexpr std::string_view kPointerName = "last_checkpoint";
  static constexpr std::string_view kStateEntry = "millrace/state";

  // Borrows both.
  CheckpointStore(Storage& data, Storage& work_dir) : data_(data), work_dir_(work_dir) {}

  std::string location() const { return data_.location(); }
  const Storage& data() const noexcept { return data_; }  // to read a file that a scan named

  // Prepares both storages, and returns what a crash had left in them.
  std::vector<std::string> prepare();

  // Commits the file, then the pointer to it: `<data location>/<name>`. Durable means both are.
  // When the pointer fails, the file stays (a scan finds it) and the error's path is the pointer's.
  CommitTimes commit(std::string_view name, FileImage& image);

  // Removes one file; a missing one is no error.
  void retire(std::string_view name) { data_.retire(name); }
  // Removes every one of them, then throws the first error there was.
  void retire(std::span<const std::string> names);

  // A file that would have been preferred, or might have, and why it was not taken (a sentence).
  struct Skipped {
    std::string name;
    std::string reason;
  };
  struct Scan {
    std::string name;  // empty: no valid checkpoint
    CheckpointIdentity identity;
    std::vector<Skipped> skipped;

    bool found() const noexcept { return !name.empty(); }
  };

  // The file to resume from: reads who every `*.pth` is, orders them newest first, and verifies
  // them fully in that order until one is sound. Newest is the highest generation, whatever the
  // step; files without our record (MMEngine's own) are generation 0, by modified time.
  // `last_checkpoint` is not asked. Not candidates: best_* (no optimizer in them; may come later)
  // and published `<stem>-<8 hex digits>.pth`. A bad file is never an error here; a directory that
  // cannot be listed is.
  Scan newest_valid();

  // The highest generation any `*.pth` claims, best_* and broken ones included where it can be
  // read; the next save is this plus one. 0 when there is none.
  std::uint64_t highest_generation();

  // Who a file is; generation 0 and no ids when it carries no record. The Fault says what is wrong
  // with the file. Throws StorageError when it cannot be read.
  Result<CheckpointIdentity> identity(std::string_view name);

 private:
  struct Candidate {
    ObjectInfo info;
    CheckpointIdentity identity;
  };
  std::vector<Candidate> candidates(std::vector<Skipped>& skipped);
  std::string why_unusable(const std::string& name);

  Storage& data_;
  Storage& work_dir_;
};

}  // namespace millrace
