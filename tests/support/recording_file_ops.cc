#include "tests/support/recording_file_ops.h"

#include <chrono>
#include <thread>
#include <utility>

namespace millrace::test {
namespace {

using Kind = DiskOperation::Kind;

std::string last_part(const std::string& path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

std::string DiskOperation::text() const {
  const std::string number = "file " + std::to_string(file);
  switch (kind) {
    case Kind::kCreate:
      return "create " + last_part(path) + " as " + number;
    case Kind::kWrite:
      return "write " + number + " " + std::to_string(offset) + "+" + std::to_string(bytes.size());
    case Kind::kResize:
      return "resize " + number + " to " + std::to_string(size);
    case Kind::kSync:
      return "fdatasync " + number;
    case Kind::kRename:
      return "rename " + last_part(path) + " " + last_part(to) + ", " + number;
    case Kind::kLink:
      return "link " + last_part(path) + " " + last_part(to) + ", " + number;
    case Kind::kUnlink:
      return "unlink " + last_part(path);
    case Kind::kMakeDirectory:
      return "mkdir " + path;
    case Kind::kSyncDirectory:
      return "fsync " + path;
    case Kind::kMark:
      break;
  }
  return "mark " + std::to_string(mark);
}

RecordingFileOps::RecordingFileOps(const DiskImage& disk, MemoryFileOps::Limits limits)
    : disk_(disk, limits) {
  restart();
}

void RecordingFileOps::restart() {
  const std::lock_guard lock(mutex_);
  log_ = {};
  log_.start = disk_.image();
  for (const auto& [path, file] : log_.start.files) {
    log_.start_files[path] = number_of(disk_.file_at(path));
  }
}

void RecordingFileOps::mark(std::size_t number) {
  const std::lock_guard lock(mutex_);
  add(Kind::kMark, nullptr).mark = number;
}

DiskLog RecordingFileOps::log() const {
  const std::lock_guard lock(mutex_);
  return log_;
}

void RecordingFileOps::delay(std::uint64_t seed) {
  const std::lock_guard lock(mutex_);
  delays_.emplace(seed);
}

// Before the operation, so that another thread's may come first.
std::unique_lock<std::mutex> RecordingFileOps::turn() {
  std::unique_lock lock(mutex_);
  if (!delays_ || (*delays_)() % 4 != 0) return lock;
  const std::chrono::microseconds delay(std::int64_t{1} << (*delays_)() % 15);
  lock.unlock();
  std::this_thread::sleep_for(delay);
  lock.lock();
  return lock;
}

std::size_t RecordingFileOps::number_of(const void* file) {
  const auto [found, added] = numbers_.try_emplace(file, files_);
  if (added) ++files_;
  return found->second;
}

DiskOperation& RecordingFileOps::add(Kind kind, const void* file, std::string path) {
  DiskOperation& operation = log_.operations.emplace_back(DiskOperation{kind});
  if (file != nullptr) operation.file = number_of(file);
  operation.path = std::move(path);
  return operation;
}

// A new file may lie where a freed one was, and is another one.
int RecordingFileOps::log_create(int fd, const std::string& path) {
  if (fd < 0) return fd;
  numbers_.erase(disk_.file_of(fd));
  add(Kind::kCreate, disk_.file_of(fd), path);
  return fd;
}

int RecordingFileOps::create_exclusive(const std::string& path, bool direct) {
  const auto lock = turn();
  return log_create(disk_.create_exclusive(path, direct), path);
}

int RecordingFileOps::open_append(const std::string& path, bool create) {
  const auto lock = turn();
  const int fd = disk_.open_append(path, create);
  return create ? log_create(fd, path) : fd;
}

std::uint64_t RecordingFileOps::size_of(int fd) {
  FileStatus status;
  return disk_.fstat(fd, status) == 0 ? status.size : 0;
}

std::int64_t RecordingFileOps::pwrite(int fd, std::span<const std::byte> bytes,
                                      std::uint64_t offset) {
  const auto lock = turn();
  const std::int64_t count = disk_.pwrite(fd, bytes, offset);
  if (count <= 0) return count;
  const auto written = bytes.first(static_cast<std::size_t>(count));
  DiskOperation& operation = add(Kind::kWrite, disk_.file_of(fd));
  operation.offset = offset;
  operation.bytes.assign(written.begin(), written.end());
  return count;
}

std::int64_t RecordingFileOps::append(int fd, std::span<const std::byte> bytes) {
  const auto lock = turn();
  const std::uint64_t end = size_of(fd);
  const std::int64_t count = disk_.append(fd, bytes);
  if (count <= 0) return count;
  const auto written = bytes.first(static_cast<std::size_t>(count));
  DiskOperation& operation = add(Kind::kWrite, disk_.file_of(fd));
  operation.offset = end;
  operation.bytes.assign(written.begin(), written.end());
  return count;
}

int RecordingFileOps::log_size(int fd, std::uint64_t before, int result) {
  const std::uint64_t after = size_of(fd);
  if (result == 0 && after != before) add(Kind::kResize, disk_.file_of(fd)).size = after;
  return result;
}

int RecordingFileOps::fallocate(int fd, std::uint64_t size) {
  const auto lock = turn();
  const std::uint64_t before = size_of(fd);
  return log_size(fd, before, disk_.fallocate(fd, size));
}

int RecordingFileOps::ftruncate(int fd, std::uint64_t size) {
  const auto lock = turn();
  const std::uint64_t before = size_of(fd);
  return log_size(fd, before, disk_.ftruncate(fd, size));
}

int RecordingFileOps::fdatasync(int fd) {
  const auto lock = turn();
  const int result = disk_.fdatasync(fd);
  if (result == 0) add(Kind::kSync, disk_.file_of(fd));
  return result;
}

int RecordingFileOps::rename(const std::string& from, const std::string& to) {
  const auto lock = turn();
  const bool changes = disk_.file_at(from) != disk_.file_at(to);
  const int result = disk_.rename(from, to);
  if (result == 0 && changes) add(Kind::kRename, disk_.file_at(to), from).to = to;
  return result;
}

int RecordingFileOps::link(const std::string& from, const std::string& to) {
  const auto lock = turn();
  const int result = disk_.link(from, to);
  if (result == 0) add(Kind::kLink, disk_.file_at(to), from).to = to;
  return result;
}

int RecordingFileOps::unlink(const std::string& path) {
  const auto lock = turn();
  const int result = disk_.unlink(path);
  if (result == 0) add(Kind::kUnlink, nullptr, path);
  return result;
}

int RecordingFileOps::mkdir(const std::string& path) {
  const auto lock = turn();
  const int result = disk_.mkdir(path);
  if (result == 0) add(Kind::kMakeDirectory, nullptr, path);
  return result;
}

int RecordingFileOps::fsync_dir(const std::string& path) {
  const auto lock = turn();
  const int result = disk_.fsync_dir(path);
  if (result == 0) add(Kind::kSyncDirectory, nullptr, path);
  return result;
}

}  // namespace millrace::test
