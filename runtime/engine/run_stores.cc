#include "millrace/runtime/engine/run_stores.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "millrace/io/file_ops.h"
#include "millrace/io/local_storage.h"

namespace millrace {
namespace {

// Absolute, and without a last slash.
std::filesystem::path full_path(const std::filesystem::path& path) {
  const auto full = std::filesystem::absolute(path).lexically_normal();
  return full.has_filename() ? full : full.parent_path();
}

}  // namespace

RunStores::RunStores(std::filesystem::path work_dir, std::unique_ptr<Storage> default_storage,
                     std::shared_ptr<FileOps> files)
    : work_dir_(full_path(work_dir)),
      files_(files ? std::move(files) : std::make_shared<PosixFileOps>()),
      work_storage_(std::make_shared<LocalStorage>(work_dir, files_)),
      default_storage_(work_storage_) {
  directories_.insert(work_dir_);
  if (default_storage) default_storage_ = std::move(default_storage);
  storages_ = {work_storage_, default_storage_};
}

RunStores::~RunStores() = default;

CheckpointStore& RunStores::open(const std::filesystem::path& out_dir) {
  if (out_dir.empty() || full_path(out_dir) == work_dir_) return store_on(*default_storage_);
  const std::filesystem::path directory = out_dir / work_dir_.filename();
  directories_.insert(full_path(directory));
  for (const auto& storage : storages_) {
    const auto* local = dynamic_cast<const LocalStorage*>(storage.get());
    if (local != nullptr && full_path(local->location()) == full_path(directory)) {
      return store_on(*storage);
    }
  }
  storages_.push_back(std::make_shared<LocalStorage>(directory, files_));
  return store_on(*storages_.back());
}

CheckpointStore& RunStores::open(std::shared_ptr<Storage> storage) {
  storages_.push_back(std::move(storage));
  return store_on(*storages_.back());
}

// One store for a storage, because it owns the catalog.
CheckpointStore& RunStores::store_on(Storage& storage) {
  if (const auto* local = dynamic_cast<const LocalStorage*>(&storage)) {
    directories_.insert(full_path(local->location()));
  }
  for (CheckpointStore* store : opened_) {
    if (&store->data() == &storage) return *store;
  }
  stores_.push_back(std::make_unique<CheckpointStore>(storage, *work_storage_));
  opened_.push_back(stores_.back().get());
  return *stores_.back();
}

std::vector<CheckpointStore*> RunStores::all() {
  if (!opened_.empty()) return opened_;
  if (stores_.empty()) {
    stores_.push_back(std::make_unique<CheckpointStore>(*default_storage_, *work_storage_));
  }
  return {stores_.front().get()};
}

RunStores::Prepared RunStores::prepare() {
  lock();
  Prepared prepared;
  CheckpointStore::Prepared& found = prepared.found;
  found.swept = work_storage_->prepare();
  for (CheckpointStore* store : opened_) {
    CheckpointStore::Prepared here = store->prepare();
    for (std::string& name : here.swept) found.swept.push_back(std::move(name));
    for (std::string& note : here.notes) found.notes.push_back(std::move(note));
    prepared.highest_generation =
        std::max(prepared.highest_generation, store->highest_generation());
  }
  return prepared;
}

// Before anything is swept that a crash left behind: another run's files are not that.
void RunStores::lock() {
  locks_.clear();  // a start that failed may have left some
  for (const std::filesystem::path& directory : directories_) {
    std::error_code ignored;  // prepare() says why it cannot be made
    std::filesystem::create_directories(directory, ignored);
    locks_.emplace_back(directory);
  }
}

}  // namespace millrace
