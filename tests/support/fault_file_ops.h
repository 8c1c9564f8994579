// FaultFileOps: real file operations that a test can count, make fail, shorten, hold and look back
// on.
//
// Thread-safe. A failed call is not made, except close, which always closes (as the kernel does).
// Faults stay until they are used up or clear_faults() is called.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "millrace/io/file_ops.h"

namespace millrace::test {

enum class FileOp {
  kCreate,
  kOpenRead,
  kOpenAppend,
  kClearDirect,
  kClose,
  kPwrite,
  kAppend,
  kPread,
  kFallocate,
  kFtruncate,
  kSyncRange,
  kDropCache,
  kFdatasync,
  kRename,
  kLink,
  kUnlink,
  kMkdir,
  kFsyncDir,
  kStat,
  kFstat,
  kList,
  kFreeSpace,
};

struct FileCall {
  FileOp op;
  std::string path;  // of the descriptor, where the call takes one
  std::string to{};  // second name of rename and link
  std::uint64_t offset = 0, length = 0;
  std::int64_t result = 0;

  // "pwrite .a.*.tmp 0+4096", "rename .a.*.tmp a": last components, random digits as *.
  std::string text() const;
};

class FaultFileOps final : public FileOps {
 public:
  static constexpr int kForever = -1;

  // kSkipped: syncs succeed without being made, so that thousands of runs cost no disk time.
  enum class Syncs : std::uint8_t { kReal, kSkipped };
  explicit FaultFileOps(Syncs syncs = Syncs::kReal) : syncs_(syncs) {}

  // Fails the n-th call from now on (the next one is 1), or that one and all after it.
  void fail_at(std::size_t n, int error_number, bool forever = false);
  // Fails the next `times` calls of one kind.
  void fail_next(FileOp op, int error_number, int times = 1);
  void limit_writes(std::size_t bytes);  // at most so many per pwrite and append; 0: no limit
  void limit_reads(std::size_t bytes);
  // What shall become of a call: an error, or a write or read of so many bytes at most.
  struct Fate {
    int error_number = 0;
    std::size_t most = SIZE_MAX;
  };
  // Asked at every call, one call at a time; `n` counts them, from 1. On top of the faults above.
  using Decide = std::function<Fate(std::size_t n, const FileCall& call)>;
  void decide(Decide decide);
  void clear_faults();

  // The next call of this kind, and every other one until release(), blocks before it is made.
  void hold(FileOp op);
  void wait_until_held();
  void release();

  std::vector<FileCall> calls() const;
  std::vector<std::string> texts() const;
  std::size_t count(FileOp op) const;
  void forget_calls();
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
  struct Fault {
    int error_number = 0;
    int times = 0;
  };
  // Records the call, waits while it is held, and says which error it shall have (0: none).
  Fate enter(const FileCall& call, std::size_t& index);
  int due_fault(FileOp op);
  template <class Real>
  auto run(const FileCall& call, Real real);
  std::string path_of(int fd) const;
  int opened(int fd, const std::string& path);

  const Syncs syncs_;
  PosixFileOps real_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<FileCall> calls_;
  std::map<int, std::string> paths_;
  std::map<FileOp, Fault> faults_;
  std::size_t until_failure_ = 0;  // 0: no fail_at
  int failure_ = 0;
  bool fails_forever_ = false;
  std::size_t write_limit_ = 0, read_limit_ = 0;
  Decide decide_;
  std::size_t decided_ = 0;
  std::optional<FileOp> held_;
  int waiting_ = 0;
};

}  // namespace millrace::test
