#include "millrace/io/file_ops.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdio>

namespace millrace {
namespace {

// Our result of a call that returns -1 and sets errno.
template <class T>
T result_of(T value) {
  return value < 0 ? static_cast<T>(-errno) : value;
}

FileStatus status_of(const struct ::stat& raw) {
  FileStatus status;
  status.size = static_cast<std::uint64_t>(raw.st_size);
  status.modified_ns =
      std::int64_t{raw.st_mtim.tv_sec} * 1'000'000'000 + std::int64_t{raw.st_mtim.tv_nsec};
  status.regular = S_ISREG(raw.st_mode);
  status.directory = S_ISDIR(raw.st_mode);
  return status;
}

off_t as_offset(std::uint64_t value) { return static_cast<off_t>(value); }

}  // namespace

int PosixFileOps::create_exclusive(const std::string& path, bool direct) {
  const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | (direct ? O_DIRECT : 0);
  return result_of(::open(path.c_str(), flags, 0666));
}

int PosixFileOps::open_read(const std::string& path) {
  return result_of(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

int PosixFileOps::open_append(const std::string& path, bool create) {
  const int flags = O_WRONLY | O_APPEND | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0);
  return result_of(::open(path.c_str(), flags, 0666));
}

int PosixFileOps::clear_direct(int fd) {
  // The access mode is ignored by F_SETFL, and we set no other status flag.
  return result_of(::fcntl(fd, F_SETFL, 0));
}

int PosixFileOps::close(int fd) { return result_of(::close(fd)); }

std::int64_t PosixFileOps::pwrite(int fd, std::span<const std::byte> bytes, std::uint64_t offset) {
  return result_of(std::int64_t{::pwrite(fd, bytes.data(), bytes.size(), as_offset(offset))});
}

std::int64_t PosixFileOps::append(int fd, std::span<const std::byte> bytes) {
  return result_of(std::int64_t{::write(fd, bytes.data(), bytes.size())});
}

std::int64_t PosixFileOps::pread(int fd, std::span<std::byte> bytes, std::uint64_t offset) {
  return result_of(std::int64_t{::pread(fd, bytes.data(), bytes.size(), as_offset(offset))});
}

int PosixFileOps::fallocate(int fd, std::uint64_t size) {
  return result_of(::fallocate(fd, 0, 0, as_offset(size)));
}

int PosixFileOps::ftruncate(int fd, std::uint64_t size) {
  return result_of(::ftruncate(fd, as_offset(size)));
}

int PosixFileOps::sync_range(int fd, std::uint64_t offset, std::uint64_t length, bool wait) {
  const unsigned flags = SYNC_FILE_RANGE_WRITE |
                         (wait ? SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WAIT_AFTER : 0U);
  return result_of(::sync_file_range(fd, as_offset(offset), as_offset(length), flags));
}

int PosixFileOps::drop_cache(int fd, std::uint64_t offset, std::uint64_t length) {
  return -::posix_fadvise(fd, as_offset(offset), as_offset(length), POSIX_FADV_DONTNEED);
}

int PosixFileOps::fdatasync(int fd) { return result_of(::fdatasync(fd)); }

int PosixFileOps::rename(const std::string& from, const std::string& to) {
  return result_of(::rename(from.c_str(), to.c_str()));
}

int PosixFileOps::link(const std::string& from, const std::string& to) {
  return result_of(::link(from.c_str(), to.c_str()));
}

int PosixFileOps::unlink(const std::string& path) { return result_of(::unlink(path.c_str())); }

int PosixFileOps::mkdir(const std::string& path) { return result_of(::mkdir(path.c_str(), 0777)); }

int PosixFileOps::fsync_dir(const std::string& path) {
  const int fd = result_of(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd < 0) return fd;
  const int synced = result_of(::fsync(fd));
  ::close(fd);
  return synced;
}

int PosixFileOps::stat(const std::string& path, FileStatus& status) {
  struct ::stat raw {};
  const int result = result_of(::stat(path.c_str(), &raw));
  if (result == 0) status = status_of(raw);
  return result;
}

int PosixFileOps::fstat(int fd, FileStatus& status) {
  struct ::stat raw {};
  const int result = result_of(::fstat(fd, &raw));
  if (result == 0) status = status_of(raw);
  return result;
}

int PosixFileOps::list_directory(const std::string& path, std::vector<std::string>& names) {
  DIR* directory = ::opendir(path.c_str());
  if (directory == nullptr) return -errno;
  names.clear();
  errno = 0;
  while (const dirent* entry = ::readdir(directory)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
    errno = 0;
  }
  const int result = -errno;
  ::closedir(directory);
  return result;
}

int PosixFileOps::free_space(const std::string& path, std::uint64_t& bytes) {
  struct ::statvfs raw {};
  const int result = result_of(::statvfs(path.c_str(), &raw));
  if (result == 0) bytes = std::uint64_t{raw.f_bavail} * raw.f_frsize;
  return result;
}

}  // namespace millrace
