#include "millrace/io/temp_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/async/quantity.h"

namespace millrace {
namespace {

constexpr std::size_t kPage = PageBuffer::kPage;

bool is_aligned(const void* address, std::size_t alignment) {
  return reinterpret_cast<std::uintptr_t>(address) % alignment == 0;
}

bool is_unsupported(std::int64_t result) { return result == -EOPNOTSUPP || result == -ENOSYS; }

std::string parent_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, std::max<std::size_t>(slash, 1));
}

}  // namespace

TempFile::TempFile(FileOps& ops, WriteOptions options, std::string path, std::string object)
    : ops_(ops), options_(options), path_(std::move(path)), object_(std::move(object)) {}

void TempFile::create(std::uint64_t size) {
  size_ = size;
  direct_ = size >= options_.direct_from;
  const auto open = [this] { return ops_.create_exclusive(path_, direct_); };
  fd_ = retry_interrupted(open);
  if (fd_ == -EINVAL && direct_) {
    // Some file systems make the name before they refuse the flag.
    ops_.unlink(path_);
    direct_ = false;
    fd_ = retry_interrupted(open);
  }
  if (fd_ < 0) fail("create", fd_);
  exists_ = true;
  if (size == 0) return;
  const int reserved = retry_interrupted([&] { return ops_.fallocate(fd_, size); });
  if (reserved < 0 && !is_unsupported(reserved)) fail("fallocate", reserved);
}

void TempFile::write(FileImage& image) {
  block_bytes_ = std::min(options_.block_bytes, image.window());
  for (std::uint64_t first = 0; first < size_; first += block_bytes_) {
    const std::uint64_t last = std::min(size_, first + block_bytes_);
    const std::span<const std::byte> block = image.wait(first, last);
    if (block.size() != last - first) {
      throw std::logic_error("FileImage::wait returned another length than asked for");
    }
    if (direct_) {
      write_direct(block, first);
    } else {
      write_all(block, first);
      flush_behind(first);
    }
  }
  if (!padded_) return;
  const int cut = retry_interrupted([this] { return ops_.ftruncate(fd_, size_); });
  if (cut < 0) fail("ftruncate", cut);
}

void TempFile::write_direct(std::span<const std::byte> bytes, std::uint64_t offset) {
  if (!is_aligned(bytes.data(), kPage)) return write_bounced(bytes, offset);
  const std::size_t whole = bytes.size() / kPage * kPage;
  if (whole > 0) write_all(bytes.first(whole), offset);
  if (whole < bytes.size()) write_bounced(bytes.subspan(whole), offset + whole);
}

void TempFile::write_bounced(std::span<const std::byte> bytes, std::uint64_t offset) {
  const std::size_t padded = (bytes.size() + kPage - 1) / kPage * kPage;
  const std::span<std::byte> pages = bounce_.take(padded);
  std::memcpy(pages.data(), bytes.data(), bytes.size());
  std::memset(pages.data() + bytes.size(), 0, padded - bytes.size());
  if (padded > bytes.size()) padded_ = true;
  write_all(pages, offset);
}

void TempFile::write_all(std::span<const std::byte> bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const std::int64_t count = retry_interrupted([&] { return ops_.pwrite(fd_, bytes, offset); });
    if (count == -EINVAL && direct_) {
      // Refused alignment: of the file system, or of the rest after a short write.
      const int cleared = ops_.clear_direct(fd_);
      if (cleared < 0) fail("fcntl", cleared);
      direct_ = false;
      continue;
    }
    if (count <= 0) fail("pwrite", count == 0 ? -EIO : count);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
}

// Starts write-back of this block and waits for the one before, so that little is left to fdatasync
// and the page cache of the training data is not pushed out.
void TempFile::flush_behind(std::uint64_t offset) {
  if (size_ <= block_bytes_) return;
  sync_range(offset, false);
  if (offset < block_bytes_) return;
  sync_range(offset - block_bytes_, true);
  ops_.drop_cache(fd_, offset - block_bytes_, block_bytes_);
}

void TempFile::sync_range(std::uint64_t offset, bool wait) {
  const std::uint64_t length = std::min(block_bytes_, size_ - offset);
  const int result = retry_interrupted([&] { return ops_.sync_range(fd_, offset, length, wait); });
  // A real error must not pass: reporting it here may have cleared it for fdatasync.
  if (result < 0 && !is_unsupported(result) && result != -EINVAL) fail("sync_file_range", result);
}

void TempFile::sync() {
  const int synced = ops_.fdatasync(fd_);
  if (synced < 0) fail("fdatasync", synced);
}

void TempFile::close() {
  const int closed = ops_.close(std::exchange(fd_, -1));
  if (closed < 0 && closed != -EINTR) fail("close", closed);
}

void TempFile::abandon() noexcept {
  if (fd_ >= 0) ops_.close(std::exchange(fd_, -1));
  if (exists_) ops_.unlink(path_);
  exists_ = false;
}

void TempFile::fail(const char* operation, std::int64_t result) const {
  std::string detail = "while committing " + object_;
  if (result == -ENOSPC || result == -EDQUOT) {
    detail += ", which needs " + size_text(size_);
    std::uint64_t free = 0;
    if (ops_.free_space(parent_of(path_), free) == 0) detail += "; " + size_text(free) + " is free";
    detail += ". Earlier checkpoints are untouched; free some space or keep fewer of them";
  }
  throw StorageError(operation, path_, static_cast<int>(-result), detail);
}

}  // namespace millrace
