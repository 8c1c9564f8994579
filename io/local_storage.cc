#include "millrace/io/local_storage.h"

#include <algorithm>
#include <cerrno>

#include "millrace/io/local_object.h"
#include "millrace/io/object_name.h"
#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

std::string without_last_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.empty() ? "." : path;
}

void throw_if_failed(std::int64_t result, const char* operation, const std::string& path,
                     const std::string& detail = {}) {
  if (result < 0) throw StorageError(operation, path, static_cast<int>(-result), detail);
}

// What a file system without (more) hard links says, or one that will not link this file.
bool refuses_links(int result) {
  return result == -EPERM || result == -EOPNOTSUPP || result == -ENOSYS || result == -EMLINK ||
         result == -EXDEV;
}

}  // namespace

LocalStorage::LocalStorage(const std::filesystem::path& directory)
    : LocalStorage(directory, std::make_shared<PosixFileOps>()) {}

LocalStorage::LocalStorage(const std::filesystem::path& directory, std::shared_ptr<FileOps> ops,
                           WriteOptions options)
    : directory_(without_last_slash(directory.string())), ops_(std::move(ops)), options_(options) {}

std::string LocalStorage::path_of(std::string_view name) const {
  return (directory_ == "/" ? directory_ : directory_ + "/") + std::string(name);
}

std::vector<std::string> LocalStorage::prepare() {
  make_directory(directory_);
  std::vector<std::string> swept = sweep();
  probe();
  return swept;
}

void LocalStorage::make_directory(const std::filesystem::path& path) {
  FileStatus status;
  const int found = ops_->stat(path.string(), status);
  if (found == 0 && status.directory) return;
  const std::string advice = "choose another directory for checkpoints, or make this one possible";
  if (found == 0) throw StorageError("mkdir", path.string(), ENOTDIR, advice);
  const std::string parent = without_last_slash(path.parent_path().string());
  if (found != -ENOENT || parent == path) throw_if_failed(found, "stat", path.string(), advice);
  make_directory(parent);
  const int made = ops_->mkdir(path.string());
  if (made == -EEXIST) return;
  throw_if_failed(made, "mkdir", path.string(), advice);
  throw_if_failed(ops_->fsync_dir(parent), "fsync", parent);
}

void LocalStorage::probe() {
  const std::string path = path_of(temp_name("probe"));
  const std::string advice = "checkpoints cannot be written to " + directory_ +
                             "; make it writable, or choose another directory";
  const int fd = retry_interrupted([&] { return ops_->create_exclusive(path, false); });
  throw_if_failed(fd, "create", path, advice);
  const int closed = ops_->close(fd);
  throw_if_failed(ops_->unlink(path), "unlink", path);
  if (closed != -EINTR) throw_if_failed(closed, "close", path, advice);
}

std::vector<std::string> LocalStorage::sweep() {
  std::vector<std::string> names;
  throw_if_failed(ops_->list_directory(directory_, names), "list", directory_);
  std::erase_if(names, [](const std::string& name) { return !is_leftover_name(name); });
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    throw_if_failed(ops_->unlink(path_of(name)), "unlink", path_of(name),
                    "it was left behind by a crash; remove it by hand");
  }
  return names;
}

CommitTimes LocalStorage::commit(std::string_view name, FileImage& image) {
  return commit_named(name, image, [name] { return std::string(name); }).times;
}

Storage::NamedCommit LocalStorage::commit_named(std::string_view stem, FileImage& image,
                                                const FinalName& final_name) {
  check_object_name("commit", stem);
  NamedCommit done;
  CommitTimes& times = done.times;
  times.started = std::chrono::steady_clock::now();
  TempFile temp(*ops_, options_, path_of(temp_name(stem)), path_of(stem));
  std::string trash;
  try {
    temp.create(image.size());
    temp.write(image);
    times.written = std::chrono::steady_clock::now();
    temp.sync();
    temp.close();
    times.synced = std::chrono::steady_clock::now();
    done.name = final_name();
    check_object_name("commit", done.name);
    trash = replace(temp.path(), done.name);
  } catch (...) {
    temp.abandon();
    throw;
  }
  sync_directory("whether " + path_of(done.name) + " survives a power loss; nothing was removed");
  times.durable = std::chrono::steady_clock::now();
  if (!trash.empty()) ops_->unlink(trash);
  return done;
}

bool LocalStorage::link(std::string_view existing, std::string_view name) {
  check_object_name("link", existing);
  check_object_name("link", name);
  const std::string from = path_of(existing);
  const std::string temp = path_of(temp_name(name));
  const int linked = ops_->link(from, temp);
  if (refuses_links(linked)) return false;
  throw_if_failed(linked, "link", from, "as " + temp);
  std::string trash;
  try {
    trash = replace(temp, name);
  } catch (...) {
    ops_->unlink(temp);
    throw;
  }
  ops_->unlink(temp);  // there only when both names were one file already
  sync_directory("whether the link " + path_of(name) +
                 " survives a power loss; nothing was removed");
  if (!trash.empty()) ops_->unlink(trash);
  return true;
}

// Gives the file `temp` the object's name. Returns the trash name that what had it before now has,
// or nothing.
std::string LocalStorage::replace(const std::string& temp, std::string_view name) {
  const std::string path = path_of(name);
  const std::string trash = link_to_trash(path, path_of(trash_name(name)));
  const int renamed = ops_->rename(temp, path);
  if (renamed < 0 && !trash.empty()) ops_->unlink(trash);
  throw_if_failed(renamed, "rename", temp, "to " + path);
  return trash;
}

// Empty when there is no old object, or no second name can be given to it.
std::string LocalStorage::link_to_trash(const std::string& path, const std::string& trash) {
  const int linked = ops_->link(path, trash);
  if (linked == 0) return trash;
  if (linked != -ENOENT && !refuses_links(linked)) {
    throw_if_failed(linked, "link", path, "as " + trash);
  }
  return {};
}

void LocalStorage::sync_directory(const std::string& uncertain) {
  const int synced = ops_->fsync_dir(directory_);
  if (synced == 0) return;
  {
    const std::lock_guard lock(mutex_);
    durable_names_.clear();
  }
  throw_if_failed(synced, "fsync", directory_, "it is uncertain " + uncertain);
}

bool LocalStorage::append(std::string_view name, std::span<const std::byte> bytes) {
  check_object_name("append", name);
  const std::string path = path_of(name);
  const auto [fd, created] = open_append(path);
  try {
    while (!bytes.empty()) {
      const auto count = retry_interrupted([&, fd = fd] { return ops_->append(fd, bytes); });
      throw_if_failed(count == 0 ? -EIO : count, "write", path, "while appending");
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
    throw_if_failed(ops_->fdatasync(fd), "fdatasync", path, "while appending");
  } catch (...) {
    ops_->close(fd);
    throw;
  }
  const int closed = ops_->close(fd);
  if (closed != -EINTR) throw_if_failed(closed, "close", path, "while appending");
  if (!created && name_is_durable(name)) return true;
  sync_directory("whether " + path + " survives a power loss");
  const std::lock_guard lock(mutex_);
  durable_names_.emplace(name);
  return true;
}

// The descriptor, and whether the file was made for it.
std::pair<int, bool> LocalStorage::open_append(const std::string& path) {
  int fd = retry_interrupted([&] { return ops_->open_append(path, false); });
  const bool create = fd == -ENOENT;
  if (create) fd = retry_interrupted([&] { return ops_->open_append(path, true); });
  throw_if_failed(fd, "open", path, "for appending");
  return {fd, create};
}

bool LocalStorage::name_is_durable(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  return durable_names_.contains(name);
}

std::unique_ptr<StoredObject> LocalStorage::open(std::string_view name) const {
  check_object_name("open", name);
  return std::make_unique<LocalObject>(ops_, path_of(name));
}

std::vector<ObjectInfo> LocalStorage::list() const {
  std::vector<std::string> names;
  throw_if_failed(ops_->list_directory(directory_, names), "list", directory_);
  std::sort(names.begin(), names.end());
  std::vector<ObjectInfo> objects;
  for (const std::string& name : names) {
    if (is_hidden_name(name)) continue;
    FileStatus status;
    const int found = ops_->stat(path_of(name), status);
    if (found == -ENOENT) continue;  // retired since, or a dangling link
    throw_if_failed(found, "stat", path_of(name));
    if (status.regular) objects.push_back({name, status.size, status.modified_ns});
  }
  return objects;
}

void LocalStorage::retire(std::string_view name) {
  check_object_name("retire", name);
  const std::string path = path_of(name);
  const std::string trash = path_of(trash_name(name));
  const int renamed = ops_->rename(path, trash);
  if (renamed == -ENOENT) return;
  throw_if_failed(renamed, "rename", path, "to " + trash);
  sync_directory("whether the removal of " + path + " survives a power loss");
  throw_if_failed(ops_->unlink(trash), "unlink", trash);
}

}  // namespace millrace
