// CheckpointStore: the checkpoint files of one run, on top of Storage.
//
//   data      epoch_3.pth, iter_1000.pth, best_acc_epoch_2.pth, epoch_3-0a1b2c3d.pth (published),
//             and the catalog of all but the published ones
//   work_dir  last_checkpoint: the path of the newest file, as text without a newline
//
// A commit is: the file, its row in the catalog, the pointer; each durable before the next begins.
// An older file is removed only after all three. `data` and `work_dir` are often one storage.
//
// Calls block; make them on I/O threads (rows() alone may be called anywhere). Calls for different
// names may overlap, but of two commits at a time either may have the last word in the pointer, so
// the caller makes them one after the other.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/io/catalog.h"
#include "millrace/io/publish.h"
#include "millrace/io/state_record.h"
#include "millrace/io/storage.h"
#include "millrace/runtime/async/error.h"

namespace millrace {

class CheckpointStore {
 public:
  static constexpr std::string_view kPointerName = "last_checkpoint";
  static constexpr std::string_view kStateEntry = "millrace/state";

  // Borrows both.
  CheckpointStore(Storage& data, Storage& work_dir)
      : data_(data), work_dir_(work_dir), catalog_(data) {}

  std::string location() const { return data_.location(); }
  const Storage& data() const noexcept { return data_; }  // to read a file that a scan named

  // Prepares both storages and opens the catalog. Before anything else here.
  struct Prepared {
    std::vector<std::string> swept;  // what a crash had left behind
    std::vector<std::string> notes;  // what there is to say about the catalog
  };
  Prepared prepare();

  struct CommitOptions {
    CheckpointIdentity identity = {};
    std::int64_t saved_at_ns = 0;
    std::string digest = {};  // of the file's tail
    std::map<std::string, double> scores = {};
    bool pinned = false;
    bool pointer = true;  // false for a best file, which never becomes last_checkpoint
  };
  // Durable means the file, the row and the pointer `<data location>/<name>`. When the row or the
  // pointer fails, the file stays (a scan finds it) and the error's path says which failed.
  CommitTimes commit(std::string_view name, FileImage& image, const CommitOptions& options);
  // Its two halves, for who has to know which of them failed: the file, and then the row and the
  // pointer to it, which may be tried again without the file. The latter returns when it was
  // durable.
  CommitTimes commit_file(std::string_view name, FileImage& image);
  std::chrono::steady_clock::time_point commit_records(std::string_view name, std::uint64_t size,
                                                       const CommitOptions& options);

  // Gives a committed file a second name: a link where the storage has them, else a copy. First the
  // file, and then its row, which may be tried again without the file. link_file() returns the
  // bytes of data that were written, 0 for a link; a file that is not that of
  // options.identity.save_id (when that is given) is a CheckpointError, and nothing is done. The
  // row is that of `existing`, with scores and pin of its own.
  std::uint64_t link_file(std::string_view existing, std::string_view name,
                          const CommitOptions& options);
  void link_row(std::string_view existing, std::string_view name, const CommitOptions& options);

  // Removes one file and returns its size; a missing one is no error (0).
  std::uint64_t retire(std::string_view name);

  void score(std::string_view save_id, std::string_view metric, double value);
  void pin(std::string_view name, bool pinned);
  PublishedCheckpoint publish(std::string_view name, std::span<const std::string> published_keys,
                              const std::stop_token& stop = {});

  // What the catalog knows about the files that are there. Any thread; never waits for the disk.
  std::vector<CatalogRow> rows() const;

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
  // step; files without our record (MMEngine's own) are generation 0, by modified time. Neither
  // `last_checkpoint` nor the catalog is asked. Not candidates: published files, and best_* files
  // that hold no optimizer (a full one is newer than any regular file when nothing was saved
  // since). A bad file is never an error here; a directory that cannot be listed is.
  Scan newest_valid();
  // With `load` in place of the verification, so that a file is read once: it reads and verifies
  // the file of that name, and throws an Error where it cannot.
  Scan newest_valid(const std::function<void(const std::string& name)>& load);

  // The highest generation any `*.pth` claims, best_* and broken ones included where it can be
  // read, or the catalog has of one; the next save is this plus one. 0 when there is none.
  std::uint64_t highest_generation();

  // Who a file is; generation 0 and no ids when it carries no record. The Fault says what is wrong
  // with the file. Throws StorageError when it cannot be read.
  Result<CheckpointIdentity> identity(std::string_view name) const;

 private:
  struct Candidate {
    ObjectInfo info;
    CheckpointIdentity identity;
  };
  std::vector<Candidate> candidates(std::vector<Skipped>& skipped);
  bool holds_optimizer(std::string_view name) const;
  std::string why_unusable(const std::string& name);
  // `why_not` says nothing of one that is.
  Scan first_usable(const std::function<std::string(const std::string& name)>& why_not);
  void add_row(std::string_view name, std::uint64_t size, const CommitOptions& options);

  Storage& data_;
  Storage& work_dir_;
  // change(Catalog&), alone, and shows the outcome in rows().
  template <class Change>
  void change_catalog(Change change);

  std::mutex mutex_;  // guards the catalog, whose calls block
  Catalog catalog_;
  mutable std::mutex rows_mutex_;
  std::vector<CatalogRow> rows_;  // of the catalog, after its last change
};

}  // namespace millrace
