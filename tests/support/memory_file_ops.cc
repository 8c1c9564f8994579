#include "tests/support/memory_file_ops.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace millrace::test {
namespace {

FileStatus status_of(const DiskFile& file) {
  FileStatus status;
  status.size = file.bytes.size();
  status.modified_ns = file.modified_ns;
  status.regular = true;
  return status;
}

}  // namespace

std::string parent_directory(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

MemoryFileOps::MemoryFileOps(const DiskImage& disk, Limits limits)
    : limits_(limits), directories_(disk.directories) {
  std::map<const DiskFile*, FilePtr> copies;
  for (const auto& [path, file] : disk.files) {
    FilePtr& copy = copies[file.get()];
    if (!copy) copy = std::make_shared<DiskFile>(*file);
    files_.emplace(path, copy);
    changes_ = std::max(changes_, file->modified_ns);
  }
}

DiskImage MemoryFileOps::image() const {
  const std::lock_guard lock(mutex_);
  DiskImage disk{directories_, {}};
  std::map<const DiskFile*, std::shared_ptr<const DiskFile>> copies;
  for (const auto& [path, file] : files_) {
    auto& copy = copies[file.get()];
    if (!copy) copy = std::make_shared<const DiskFile>(*file);
    disk.files.emplace(path, copy);
  }
  return disk;
}

const void* MemoryFileOps::file_of(int fd) const {
  const std::lock_guard lock(mutex_);
  return file(fd);
}

const void* MemoryFileOps::file_at(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(path);
  return found != files_.end() ? found->second.get() : nullptr;
}

std::size_t MemoryFileOps::open_descriptors() const {
  const std::lock_guard lock(mutex_);
  return descriptors_.size();
}

int MemoryFileOps::may_make(const std::string& path) const {
  if (files_.contains(path) || directories_.contains(path)) return -EEXIST;
  return directories_.contains(parent_directory(path)) ? 0 : -ENOENT;
}

int MemoryFileOps::opened(FilePtr file) {
  descriptors_.emplace(next_descriptor_, std::move(file));
  return next_descriptor_++;
}

DiskFile* MemoryFileOps::file(int fd) const {
  const auto found = descriptors_.find(fd);
  return found != descriptors_.end() ? found->second.get() : nullptr;
}

int MemoryFileOps::create_exclusive(const std::string& path, bool) {
  const std::lock_guard lock(mutex_);
  const int may = may_make(path);
  if (may < 0) return may;
  const auto made = files_.emplace(path, std::make_shared<DiskFile>()).first;
  made->second->modified_ns = ++changes_;
  return opened(made->second);
}

int MemoryFileOps::open_read(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(path);
  return found != files_.end() ? opened(found->second) : -ENOENT;
}

int MemoryFileOps::open_append(const std::string& path, bool create) {
  return create ? create_exclusive(path, false) : open_read(path);
}

int MemoryFileOps::clear_direct(int) { return 0; }

int MemoryFileOps::close(int fd) {
  const std::lock_guard lock(mutex_);
  return descriptors_.erase(fd) > 0 ? 0 : -EBADF;
}

std::int64_t MemoryFileOps::write(int fd, std::span<const std::byte> bytes, std::uint64_t offset) {
  DiskFile* const target = file(fd);
  if (target == nullptr) return -EBADF;
  bytes = bytes.first(std::min(bytes.size(), limits_.write_bytes));
  if (target->bytes.size() < offset + bytes.size()) target->bytes.resize(offset + bytes.size());
  std::copy(bytes.begin(), bytes.end(),
            target->bytes.begin() + static_cast<std::ptrdiff_t>(offset));
  target->modified_ns = ++changes_;
  return static_cast<std::int64_t>(bytes.size());
}

std::int64_t MemoryFileOps::pwrite(int fd, std::span<const std::byte> bytes, std::uint64_t offset) {
  const std::lock_guard lock(mutex_);
  return write(fd, bytes, offset);
}

std::int64_t MemoryFileOps::append(int fd, std::span<const std::byte> bytes) {
  const std::lock_guard lock(mutex_);
  const DiskFile* const target = file(fd);
  return target != nullptr ? write(fd, bytes, target->bytes.size()) : -EBADF;
}

std::int64_t MemoryFileOps::pread(int fd, std::span<std::byte> bytes, std::uint64_t offset) {
  const std::lock_guard lock(mutex_);
  const DiskFile* const source = file(fd);
  if (source == nullptr) return -EBADF;
  if (offset >= source->bytes.size()) return 0;
  const std::size_t count = std::min<std::size_t>(bytes.size(), source->bytes.size() - offset);
  if (count > 0) std::memcpy(bytes.data(), source->bytes.data() + offset, count);
  return static_cast<std::int64_t>(count);
}

int MemoryFileOps::resize(int fd, std::uint64_t size, bool shrinks) {
  const std::lock_guard lock(mutex_);
  DiskFile* const target = file(fd);
  if (target == nullptr) return -EBADF;
  if (shrinks || size > target->bytes.size()) target->bytes.resize(size);
  target->modified_ns = ++changes_;
  return 0;
}

int MemoryFileOps::fallocate(int fd, std::uint64_t size) { return resize(fd, size, false); }
int MemoryFileOps::ftruncate(int fd, std::uint64_t size) { return resize(fd, size, true); }
int MemoryFileOps::sync_range(int, std::uint64_t, std::uint64_t, bool) { return 0; }
int MemoryFileOps::drop_cache(int, std::uint64_t, std::uint64_t) { return 0; }
int MemoryFileOps::fdatasync(int) { return 0; }

int MemoryFileOps::rename(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(from);
  if (found == files_.end() || !directories_.contains(parent_directory(to))) return -ENOENT;
  if (directories_.contains(to)) return -EISDIR;
  FilePtr& target = files_[to];
  if (target == found->second) return 0;  // two names of one file: both stay
  target = found->second;
  files_.erase(found);
  return 0;
}

int MemoryFileOps::link(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(from);
  if (found == files_.end()) return -ENOENT;
  if (!limits_.links) return -EPERM;
  const int may = may_make(to);
  if (may == 0) files_.emplace(to, found->second);
  return may;
}

int MemoryFileOps::unlink(const std::string& path) {
  const std::lock_guard lock(mutex_);
  return files_.erase(path) > 0 ? 0 : -ENOENT;
}

int MemoryFileOps::mkdir(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const int may = may_make(path);
  if (may == 0) directories_.insert(path);
  return may;
}

int MemoryFileOps::fsync_dir(const std::string& path) {
  const std::lock_guard lock(mutex_);
  return directories_.contains(path) ? 0 : -ENOENT;
}

int MemoryFileOps::stat(const std::string& path, FileStatus& status) {
  const std::lock_guard lock(mutex_);
  status = {};
  status.directory = directories_.contains(path);
  if (status.directory) return 0;
  const auto found = files_.find(path);
  if (found == files_.end()) return -ENOENT;
  status = status_of(*found->second);
  return 0;
}

int MemoryFileOps::fstat(int fd, FileStatus& status) {
  const std::lock_guard lock(mutex_);
  const DiskFile* const found = file(fd);
  if (found == nullptr) return -EBADF;
  status = status_of(*found);
  return 0;
}

int MemoryFileOps::list_directory(const std::string& path, std::vector<std::string>& names) {
  const std::lock_guard lock(mutex_);
  if (!directories_.contains(path)) return -ENOENT;
  const auto add = [&](const std::string& entry) {
    if (entry != "/" && parent_directory(entry) == path) {
      names.push_back(entry.substr(entry.rfind('/') + 1));
    }
  };
  for (const auto& [entry, file] : files_) add(entry);
  for (const std::string& entry : directories_) add(entry);
  return 0;
}

int MemoryFileOps::free_space(const std::string&, std::uint64_t& bytes) {
  bytes = std::uint64_t{1} << 40;
  return 0;
}

}  // namespace millrace::test
