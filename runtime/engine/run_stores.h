// RunStores: where one run keeps its checkpoints. The work dir, the storages that options and hooks
// name, one CheckpointStore on each, and the locks on their directories.
//
// The Checkpointer's. Stores are opened on the train context while hooks attach; prepare() blocks
// and is called on an I/O thread, before anybody else uses a store.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "millrace/io/checkpoint_store.h"
#include "millrace/io/directory_lock.h"

namespace millrace {

class FileOps;

class RunStores {
 public:
  // `default_storage` null: the work dir. `files` null: the system's; all checkpoints on local
  // disks are written through it.
  RunStores(std::filesystem::path work_dir, std::unique_ptr<Storage> default_storage,
            std::shared_ptr<FileOps> files);
  ~RunStores();
  RunStores(const RunStores&) = delete;
  RunStores& operator=(const RunStores&) = delete;

  // The store below `out_dir`, the default one when that is empty. As in the reference, an out_dir
  // other than the work dir gets the work dir's last component appended. The same place is the same
  // store.
  CheckpointStore& open(const std::filesystem::path& out_dir);
  CheckpointStore& open(std::shared_ptr<Storage> storage);
  bool any_opened() const noexcept { return !opened_.empty(); }
  // Every opened store; where nobody saves, the default one.
  std::vector<CheckpointStore*> all();

  // Locks the directories, prepares every opened store and the work dir. Throws StorageError for a
  // directory that another run holds or that cannot be written.
  struct Prepared {
    CheckpointStore::Prepared found;
    std::uint64_t highest_generation = 0;
  };
  Prepared prepare();
  // Other runs may write to the directories again.
  void unlock() { locks_.clear(); }

 private:
  CheckpointStore& store_on(Storage& storage);
  void lock();

  const std::filesystem::path work_dir_;
  const std::shared_ptr<FileOps> files_;
  const std::shared_ptr<Storage> work_storage_;  // last_checkpoint lives here
  std::shared_ptr<Storage> default_storage_;
  std::set<std::filesystem::path> directories_;  // that this run writes checkpoints to
  std::vector<std::shared_ptr<Storage>> storages_;
  std::vector<std::unique_ptr<CheckpointStore>> stores_;
  std::vector<CheckpointStore*> opened_;
  std::vector<DirectoryLock> locks_;
};

}  // namespace millrace
