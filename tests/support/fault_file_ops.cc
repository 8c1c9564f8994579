#include "tests/support/fault_file_ops.h"

#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "millrace/io/object_name.h"

namespace millrace::test {
namespace {

constexpr std::array<const char*, 22> kNames = {
    "create",    "open_read", "open_append", "clear_direct", "close",      "pwrite",
    "append",    "pread",     "fallocate",   "ftruncate",    "sync_range", "drop_cache",
    "fdatasync", "rename",    "link",        "unlink",       "mkdir",      "fsync_dir",
    "stat",      "fstat",     "list",        "free_space"};

std::string shortened(const std::string& path) {
  std::string name = path.substr(path.rfind('/') + 1);
  if (is_leftover_name(name)) name.replace(name.rfind('.') - 16, 16, "*");
  return name;
}

}  // namespace

std::string FileCall::text() const {
  std::string text = kNames.at(static_cast<std::size_t>(op));
  text += " " + shortened(path);
  if (!to.empty()) text += " " + shortened(to);
  if (length > 0) text += " " + std::to_string(offset) + "+" + std::to_string(length);
  return text;
}

void FaultFileOps::fail_at(std::size_t n, int error_number, bool forever) {
  const std::lock_guard lock(mutex_);
  until_failure_ = n;
  failure_ = error_number;
  fails_forever_ = forever;
}

void FaultFileOps::fail_next(FileOp op, int error_number, int times) {
  const std::lock_guard lock(mutex_);
  faults_[op] = {error_number, times};
}

void FaultFileOps::limit_writes(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  write_limit_ = bytes;
}

void FaultFileOps::limit_reads(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  read_limit_ = bytes;
}

void FaultFileOps::decide(Decide decide) {
  const std::lock_guard lock(mutex_);
  decide_ = std::move(decide);
  decided_ = 0;
}

void FaultFileOps::clear_faults() {
  const std::lock_guard lock(mutex_);
  decide_ = nullptr;
  faults_.clear();
  until_failure_ = 0;
  write_limit_ = read_limit_ = 0;
}

void FaultFileOps::hold(FileOp op) {
  const std::lock_guard lock(mutex_);
  held_ = op;
}

void FaultFileOps::wait_until_held() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return waiting_ > 0; });
}

void FaultFileOps::release() {
  const std::lock_guard lock(mutex_);
  held_.reset();
  changed_.notify_all();
}

std::vector<FileCall> FaultFileOps::calls() const {
  const std::lock_guard lock(mutex_);
  return calls_;
}

std::vector<std::string> FaultFileOps::texts() const {
  std::vector<std::string> texts;
  for (const FileCall& call : calls()) texts.push_back(call.text());
  return texts;
}

std::size_t FaultFileOps::count(FileOp op) const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::size_t>(std::count_if(
      calls_.begin(), calls_.end(), [op](const FileCall& call) { return call.op == op; }));
}

void FaultFileOps::forget_calls() {
  const std::lock_guard lock(mutex_);
  calls_.clear();
}

std::size_t FaultFileOps::open_descriptors() const {
  const std::lock_guard lock(mutex_);
  return paths_.size();
}

FaultFileOps::Fate FaultFileOps::enter(const FileCall& call, std::size_t& index) {
  std::unique_lock lock(mutex_);
  index = calls_.size();
  calls_.push_back(call);
  if (held_ == call.op) {
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return held_ != call.op; });
    --waiting_;
  }
  Fate fate;
  if (decide_) fate = decide_(++decided_, call);
  if (const int fault = due_fault(call.op); fault != 0) fate.error_number = fault;
  return fate;
}

int FaultFileOps::due_fault(FileOp op) {
  if (until_failure_ == 1) {
    if (!fails_forever_) until_failure_ = 0;
    return failure_;
  }
  if (until_failure_ > 1) --until_failure_;
  const auto found = faults_.find(op);
  if (found == faults_.end() || found->second.times == 0) return 0;
  if (found->second.times > 0) --found->second.times;
  return found->second.error_number;
}

template <class Real>
auto FaultFileOps::run(const FileCall& call, Real real) {
  std::size_t index = 0;
  const Fate fate = enter(call, index);
  const auto made = [&] {
    if constexpr (std::is_invocable_v<Real, std::size_t>) {
      return real(fate.most);
    } else {
      return real();
    }
  };
  decltype(made()) result = -fate.error_number;
  if (fate.error_number == 0) result = made();
  const std::lock_guard lock(mutex_);
  if (index < calls_.size()) calls_[index].result = result;
  return result;
}

std::string FaultFileOps::path_of(int fd) const {
  const std::lock_guard lock(mutex_);
  const auto found = paths_.find(fd);
  return found == paths_.end() ? "?" : found->second;
}

int FaultFileOps::opened(int fd, const std::string& path) {
  if (fd < 0) return fd;
  const std::lock_guard lock(mutex_);
  paths_[fd] = path;
  return fd;
}

int FaultFileOps::create_exclusive(const std::string& path, bool direct) {
  return run({FileOp::kCreate, path},
             [&] { return opened(real_.create_exclusive(path, direct), path); });
}

int FaultFileOps::open_read(const std::string& path) {
  return run({FileOp::kOpenRead, path}, [&] { return opened(real_.open_read(path), path); });
}

int FaultFileOps::open_append(const std::string& path, bool create) {
  return run({FileOp::kOpenAppend, path, create ? "new" : ""},
             [&] { return opened(real_.open_append(path, create), path); });
}

int FaultFileOps::clear_direct(int fd) {
  return run({FileOp::kClearDirect, path_of(fd)}, [&] { return real_.clear_direct(fd); });
}

int FaultFileOps::close(int fd) {
  const int result = run({FileOp::kClose, path_of(fd)}, [] { return 0; });
  {
    const std::lock_guard lock(mutex_);
    paths_.erase(fd);
  }
  const int closed = real_.close(fd);
  return result < 0 ? result : closed;
}

std::int64_t FaultFileOps::pwrite(int fd, std::span<const std::byte> bytes, std::uint64_t offset) {
  {
    const std::lock_guard lock(mutex_);
    if (write_limit_ > 0) bytes = bytes.first(std::min(bytes.size(), write_limit_));
  }
  return run({FileOp::kPwrite, path_of(fd), {}, offset, bytes.size()}, [&](std::size_t most) {
    return real_.pwrite(fd, bytes.first(std::min(bytes.size(), most)), offset);
  });
}

std::int64_t FaultFileOps::append(int fd, std::span<const std::byte> bytes) {
  {
    const std::lock_guard lock(mutex_);
    if (write_limit_ > 0) bytes = bytes.first(std::min(bytes.size(), write_limit_));
  }
  return run({FileOp::kAppend, path_of(fd), {}, 0, bytes.size()}, [&](std::size_t most) {
    return real_.append(fd, bytes.first(std::min(bytes.size(), most)));
  });
}

std::int64_t FaultFileOps::pread(int fd, std::span<std::byte> bytes, std::uint64_t offset) {
  {
    const std::lock_guard lock(mutex_);
    if (read_limit_ > 0) bytes = bytes.first(std::min(bytes.size(), read_limit_));
  }
  return run({FileOp::kPread, path_of(fd), {}, offset, bytes.size()}, [&](std::size_t most) {
    return real_.pread(fd, bytes.first(std::min(bytes.size(), most)), offset);
  });
}

int FaultFileOps::fallocate(int fd, std::uint64_t size) {
  return run({FileOp::kFallocate, path_of(fd), {}, 0, size},
             [&] { return real_.fallocate(fd, size); });
}

int FaultFileOps::ftruncate(int fd, std::uint64_t size) {
  return run({FileOp::kFtruncate, path_of(fd), {}, 0, size},
             [&] { return real_.ftruncate(fd, size); });
}

int FaultFileOps::sync_range(int fd, std::uint64_t offset, std::uint64_t length, bool wait) {
  return run({FileOp::kSyncRange, path_of(fd), {}, offset, length},
             [&] { return real_.sync_range(fd, offset, length, wait); });
}

int FaultFileOps::drop_cache(int fd, std::uint64_t offset, std::uint64_t length) {
  return run({FileOp::kDropCache, path_of(fd), {}, offset, length},
             [&] { return real_.drop_cache(fd, offset, length); });
}

int FaultFileOps::fdatasync(int fd) {
  return run({FileOp::kFdatasync, path_of(fd)},
             [&] { return syncs_ == Syncs::kReal ? real_.fdatasync(fd) : 0; });
}

int FaultFileOps::rename(const std::string& from, const std::string& to) {
  return run({FileOp::kRename, from, to}, [&] { return real_.rename(from, to); });
}

int FaultFileOps::link(const std::string& from, const std::string& to) {
  return run({FileOp::kLink, from, to}, [&] { return real_.link(from, to); });
}

int FaultFileOps::unlink(const std::string& path) {
  return run({FileOp::kUnlink, path}, [&] { return real_.unlink(path); });
}

int FaultFileOps::mkdir(const std::string& path) {
  return run({FileOp::kMkdir, path}, [&] { return real_.mkdir(path); });
}

int FaultFileOps::fsync_dir(const std::string& path) {
  return run({FileOp::kFsyncDir, path},
             [&] { return syncs_ == Syncs::kReal ? real_.fsync_dir(path) : 0; });
}

int FaultFileOps::stat(const std::string& path, FileStatus& status) {
  return run({FileOp::kStat, path}, [&] { return real_.stat(path, status); });
}

int FaultFileOps::fstat(int fd, FileStatus& status) {
  return run({FileOp::kFstat, path_of(fd)}, [&] { return real_.fstat(fd, status); });
}

int FaultFileOps::list_directory(const std::string& path, std::vector<std::string>& names) {
  return run({FileOp::kList, path}, [&] { return real_.list_directory(path, names); });
}

int FaultFileOps::free_space(const std::string& path, std::uint64_t& bytes) {
  return run({FileOp::kFreeSpace, path}, [&] { return real_.free_space(path, bytes); });
}

}  // namespace millrace::test
