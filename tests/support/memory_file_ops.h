// MemoryFileOps: a small file system in memory, so that thousands of disks cost what their bytes
// do.
//
// Names, files and links as on Linux, with absolute paths; a file lives as long as a name or a
// descriptor of it. No permissions, no limit of space; O_DIRECT is accepted and changes nothing.
// Nothing here is lost: what a power cut leaves is crash_states.h's business. Files are "modified"
// by a counter, not by the clock. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "millrace/io/file_ops.h"

namespace millrace::test {

struct DiskFile {
  std::vector<std::byte> bytes;
  std::int64_t modified_ns = 0;
};

// Everything a file system holds. Several names of one file share it.
struct DiskImage {
  std::set<std::string> directories;
  std::map<std::string, std::shared_ptr<const DiskFile>> files;
};

std::string parent_directory(const std::string& path);

class MemoryFileOps final : public FileOps {
 public:
  struct Limits {
    std::size_t write_bytes = SIZE_MAX;  // the most that one pwrite or append takes
    bool links = true;                   // else -EPERM, as on FAT
  };

  MemoryFileOps() : MemoryFileOps(DiskImage{{"/"}, {}}) {}
  explicit MemoryFileOps(const DiskImage& disk) : MemoryFileOps(disk, Limits()) {}
  MemoryFileOps(const DiskImage& disk, Limits limits);

  DiskImage image() const;
  // Of a descriptor or a name: the same for all names of a file; null when there is none.
  const void* file_of(int fd) const;
  const void* file_at(const std::string& path) const;
  std::size_t open_descriptors() const;

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

 private:
  using FilePtr = std::shared_ptr<DiskFile>;
  // All with the mutex held.
  int may_make(const std::string& path) const;  // 0, -EEXIST or -ENOENT
  int opened(FilePtr file);
  DiskFile* file(int fd) const;
  std::int64_t write(int fd, std::span<const std::byte> bytes, std::uint64_t offset);
  int resize(int fd, std::uint64_t size, bool shrinks);

  const Limits limits_;
  mutable std::mutex mutex_;
  std::set<std::string> directories_;
  std::map<std::string, FilePtr> files_;
  std::map<int, FilePtr> descriptors_;
  int next_descriptor_ = 3;
  std::int64_t changes_ = 0;
};

}  // namespace millrace::test
