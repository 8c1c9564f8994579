// FileOps: the one seam between checkpoints and the file system, for faults and crash states.
// (Logs, traces, the lock of a directory and a path to resume from go to the system directly.)
//
// Each method is one raw system call and decides nothing: no retry, no loop, no exception. What to
// do about EINTR, a short write or a refused option is the caller's business (temp_file.cc,
// local_storage.cc), so that a test double can inject all of it, and a recorder can replay the
// calls.
//
// Results are those of the kernel: zero or a count, or a negative errno (-ENOSPC). Descriptors are
// plain ints that belong to the caller. Every method blocks and may be called from any thread.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace millrace {

struct FileStatus {
  std::uint64_t size = 0;
  std::int64_t modified_ns = 0;  // since the Unix epoch
  bool regular = false;
  bool directory = false;
};

class FileOps {
 public:
  virtual ~FileOps() = default;

  // Descriptors. `direct` asks for O_DIRECT; -EINVAL when the file system has none.
  virtual int create_exclusive(const std::string& path, bool direct) = 0;
  virtual int open_read(const std::string& path) = 0;
  // For append(). With `create` the file must not exist (-EEXIST), without it must (-ENOENT).
  virtual int open_append(const std::string& path, bool create) = 0;
  virtual int clear_direct(int fd) = 0;  // the same descriptor, through the page cache from here on
  virtual int close(int fd) = 0;         // the descriptor is gone whatever the result

  // Data. The counts may be short.
  virtual std::int64_t pwrite(int fd, std::span<const std::byte> bytes, std::uint64_t offset) = 0;
  virtual std::int64_t append(int fd, std::span<const std::byte> bytes) = 0;  // at the file's end
  virtual std::int64_t pread(int fd, std::span<std::byte> bytes, std::uint64_t offset) = 0;
  virtual int fallocate(int fd, std::uint64_t size) = 0;
  virtual int ftruncate(int fd, std::uint64_t size) = 0;
  // Starts write-back of a range; with `wait`, also waits for it. Not a durability point.
  virtual int sync_range(int fd, std::uint64_t offset, std::uint64_t length, bool wait) = 0;
  virtual int drop_cache(int fd, std::uint64_t offset, std::uint64_t length) = 0;
  virtual int fdatasync(int fd) = 0;

  // Names.
  virtual int rename(const std::string& from, const std::string& to) = 0;
  virtual int link(const std::string& from, const std::string& to) = 0;
  virtual int unlink(const std::string& path) = 0;
  virtual int mkdir(const std::string& path) = 0;
  virtual int fsync_dir(const std::string& path) = 0;  // open, fsync, close of a directory

  // Questions.
  virtual int stat(const std::string& path, FileStatus& status) = 0;
  virtual int fstat(int fd, FileStatus& status) = 0;
  virtual int list_directory(const std::string& path, std::vector<std::string>& names) = 0;
  virtual int free_space(const std::string& path, std::uint64_t& bytes) = 0;
};

class PosixFileOps final : public FileOps {
 public:
  int create_exclusive(const std::string& path, bool direct) override;
  int open_read(const std::string& path) override;
  int open_append(const std::string& path, bool create) override;
  int clear_direct(int fd) override;
  int close(int fd) override;
  std::int64_t pwrite(int fd, std::span<const std::byte> bytes, std::uint64_t offset) override;
  std::int64_t append(int fd, std::span<const std::byte> bytes) override;
  std::int64_t pread(int fd, std::span<std::byte> bytes, std::uint64_t offset) override;
  int fallocate(int fd, std::uint64_t size) override;
  int ftruncate(int fd, std::uint64_t size) override;
  int sync_range(int fd, std::uint64_t offset, std::uint64_t length, bool wait) override;
  int drop_cache(int fd, std::uint64_t offset, std::uint64_t length) override;
  int fdatasync(int fd) override;
  int rename(const std::string& from, const std::string& to) override;
  int link(const std::string& from, const std::string& to) override;
  int unlink(const std::string& path) override;
  int mkdir(const std::string& path) override;
  int fsync_dir(const std::string& path) override;
  int stat(const std::string& path, FileStatus& status) override;
  int fstat(int fd, FileStatus& status) override;
  int list_directory(const std::string& path, std::vector<std::string>& names) override;
  int free_space(const std::string& path, std::uint64_t& bytes) override;
};

// Repeats a call while it says -EINTR. For the calls that may be repeated: never a sync, never
// close.
template <class Call>
auto retry_interrupted(Call call) {
  auto result = call();
  while (result == -EINTR) result = call();
  return result;
}

}  // namespace millrace
