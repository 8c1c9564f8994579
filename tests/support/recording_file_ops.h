// RecordingFileOps: a file system in memory that keeps a log of what changed it, in the order in
// which it did. What a disk may hold after a power cut follows from the log (crash_states.h).
//
// Failed calls and calls that change nothing are not logged. A test puts marks between the
// operations: what had been promised to it by then. Thread-safe: an operation and its entry are one
// step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "tests/support/memory_file_ops.h"

namespace millrace::test {

struct DiskOperation {
  enum class Kind {
    kCreate,         // file `file` under the name `path`
    kWrite,          // `bytes` into it at `offset`; appends too
    kResize,         // to `size`: fallocate that grows it, ftruncate
    kSync,           // fdatasync of it has returned
    kRename,         // `path` to `to`, which is file `file` now
    kLink,           // file `file` got the name `to` beside `path`
    kUnlink,         // the name `path`
    kMakeDirectory,  // `path`
    kSyncDirectory,  // fsync of `path` has returned
    kMark,           // nothing on the disk: number `mark`
  };
  Kind kind;
  std::size_t file = 0;  // by number: an inode
  std::string path{}, to{};
  std::uint64_t offset = 0, size = 0;
  std::vector<std::byte> bytes{};
  std::size_t mark = 0;

  std::string text() const;  // "rename .a.0f3c.tmp a"
};

// A log, and the disk it begins with, of which everything is durable.
struct DiskLog {
  DiskImage start;
  std::map<std::string, std::size_t> start_files;  // the numbers of its files, by name
  std::vector<DiskOperation> operations;
};

class RecordingFileOps final : public FileOps {
 public:
  explicit RecordingFileOps(const DiskImage& disk, MemoryFileOps::Limits limits = {});

  void mark(std::size_t number);
  // From here on some operations, drawn by the seed, wait from a microsecond to 16 ms before they
  // begin: threads overtake each other as on a disk whose writes take unequal times.
  void delay(std::uint64_t seed);
  // Forgets the log: from here on, what there is now is durable.
  void restart();
  DiskLog log() const;
  DiskImage image() const { return disk_.image(); }
  std::size_t open_descriptors() const { return disk_.open_descriptors(); }

  int create_exclusive(const std::string& path, bool direct) override;
  int open_read(const std::string& path) override { return disk_.open_read(path); }
  int open_append(const std::string& path, bool create) override;
  int clear_direct(int fd) override { return disk_.clear_direct(fd); }
  int close(int fd) override { return disk_.close(fd); }
  std::int64_t pwrite(int fd, std::span<const std::byte> bytes, std::uint64_t offset) override;
  std::int64_t append(int fd, std::span<const std::byte> bytes) override;
  std::int64_t pread(int fd, std::span<std::byte> bytes, std::uint64_t offset) override {
    return disk_.pread(fd, bytes, offset);
  }
  int fallocate(int fd, std::uint64_t size) override;
  int ftruncate(int fd, std::uint64_t size) override;
  int sync_range(int, std::uint64_t, std::uint64_t, bool) override { return 0; }
  int drop_cache(int, std::uint64_t, std::uint64_t) override { return 0; }
  int fdatasync(int fd) override;
  int rename(const std::string& from, const std::string& to) override;
  int link(const std::string& from, const std::string& to) override;
  int unlink(const std::string& path) override;
  int mkdir(const std::string& path) override;
  int fsync_dir(const std::string& path) override;
  int stat(const std::string& path, FileStatus& status) override {
    return disk_.stat(path, status);
  }
  int fstat(int fd, FileStatus& status) override { return disk_.fstat(fd, status); }
  int list_directory(const std::string& path, std::vector<std::string>& names) override {
    return disk_.list_directory(path, names);
  }
  int free_space(const std::string& path, std::uint64_t& bytes) override {
    return disk_.free_space(path, bytes);
  }

 private:
  std::unique_lock<std::mutex> turn();
  // With the mutex held. `file` null: of no file.
  DiskOperation& add(DiskOperation::Kind kind, const void* file, std::string path = {});
  std::size_t number_of(const void* file);
  int log_create(int fd, const std::string& path);
  int log_size(int fd, std::uint64_t before, int result);
  std::uint64_t size_of(int fd);

  MemoryFileOps disk_;
  mutable std::mutex mutex_;
  std::map<const void*, std::size_t> numbers_;
  std::size_t files_ = 0;
  DiskLog log_;
  std::optional<std::mt19937_64> delays_;
};

}  // namespace millrace::test
