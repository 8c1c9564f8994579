#include "millrace/io/local_storage.h"

#include <algorithm>
#include <cerrno>

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

class LocalObject final : public StoredObject {
 public:
  LocalObject(std::shared_ptr<FileOps> ops, std::string path, int fd)
      : ops_(std::move(ops)), path_(std::move(path)), fd_(fd) {}
  ~LocalObject() override { ops_->close(fd_); }
  LocalObject(const LocalObject&) = delete;
  LocalObject& operator=(const LocalObject&) = delete;

  void measure() {
    FileStatus status;
    throw_if_failed(ops_->fstat(fd_, status), "fstat", path_);
    if (!status.regular) throw StorageError("open", path_, EINVAL, "it is not a regular file");
    size_ = status.size;
  }

  std::uint64_t size() const override { return size_; }

  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    while (!out.empty()) {
      const auto count = retry_interrupted([&] { return ops_->pread(fd_, out, offset); });
      throw_if_failed(count, "pread", path_);
      if (count == 0) {
        throw StorageError("pread", path_, 0,
                           "the object ends before byte " + std::to_string(offset + out.size()));
      }
      out = out.subspan(static_cast<std::size_t>(count));
      offset += static_cast<std::uint64_t>(count);
    }
  }

 private:
  const std::shared_ptr<FileOps> ops_;
  const std::string path_;
  const int fd_;
  std::uint64_t size_ = 0;
};

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
  const int fd = retry_interrupted([&] { return ops_->create_exclusive(path, false); });
  throw_if_failed(fd, "create", path,
                  "checkpoints cannot be written to " + directory_ +
                      "; make it writable, or choose another directory");
  ops_->close(fd);
  throw_if_failed(ops_->unlink(path), "unlink", path);
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
  check_object_name("commit", name);
  CommitTimes times;
  times.started = std::chrono::steady_clock::now();
  const std::string path = path_of(name);
  const std::string trash = path_of(trash_name(name));
  TempFile temp(*ops_, options_, path_of(temp_name(name)), path);
  bool replaced = false;
  try {
    temp.create(image.size());
    temp.write(image);
    times.written = std::chrono::steady_clock::now();
    temp.sync();
    temp.close();
    times.synced = std::chrono::steady_clock::now();
    replaced = link_to_trash(path, trash);
    replace(temp, path, replaced ? trash : std::string());
  } catch (...) {
    temp.abandon();
    throw;
  }
  throw_if_failed(
      ops_->fsync_dir(directory_), "fsync", directory_,
      "it is uncertain whether " + path + " survives a power loss; nothing was removed");
  times.durable = std::chrono::steady_clock::now();
  if (replaced) ops_->unlink(trash);
  return times;
}

// False when there is no old object, or no second name can be given to it.
bool LocalStorage::link_to_trash(const std::string& path, const std::string& trash) {
  const int linked = ops_->link(path, trash);
  if (linked == 0) return true;
  const bool harmless = linked == -ENOENT || linked == -EPERM || linked == -EOPNOTSUPP ||
                        linked == -ENOSYS || linked == -EMLINK;
  if (!harmless) throw_if_failed(linked, "link", path, "as " + trash);
  return false;
}

void LocalStorage::replace(TempFile& temp, const std::string& path, const std::string& trash) {
  const int renamed = ops_->rename(temp.path(), path);
  if (renamed == 0) return;
  if (!trash.empty()) ops_->unlink(trash);
  throw_if_failed(renamed, "rename", temp.path(), "to " + path);
}

std::unique_ptr<StoredObject> LocalStorage::open(std::string_view name) const {
  check_object_name("open", name);
  const std::string path = path_of(name);
  const int fd = retry_interrupted([&] { return ops_->open_read(path); });
  throw_if_failed(fd, "open", path);
  auto object = std::make_unique<LocalObject>(ops_, path, fd);
  object->measure();
  return object;
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
  throw_if_failed(ops_->fsync_dir(directory_), "fsync", directory_,
                  "it is uncertain whether the removal of " + path + " survives a power loss");
  throw_if_failed(ops_->unlink(trash), "unlink", trash);
}

}  // namespace millrace
