#include "millrace/runtime/staging/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t round_up(std::uint64_t bytes) {
  return (bytes + kPage - 1) / kPage * kPage;
}

void populate(std::span<std::byte> bytes) {
#ifdef MADV_POPULATE_WRITE
  if (madvise(bytes.data(), bytes.size(), MADV_POPULATE_WRITE) == 0) return;
#endif
  for (std::size_t at = 0; at < bytes.size(); at += kPage) {
    static_cast<volatile std::byte*>(bytes.data())[at] = std::byte{0};
  }
}

}  // namespace

Arena::~Arena() { release(); }

void Arena::release() noexcept {
  pinned_.reset();
  if (!bytes_.empty()) munmap(bytes_.data(), bytes_.size());
  bytes_ = {};
}

void Arena::reserve(std::uint64_t size) {
  size = round_up(std::max<std::uint64_t>(size, 1));
  if (size <= bytes_.size()) return;
  release();
  void* const block = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (block == MAP_FAILED) {
    throw Error("cannot reserve " + std::to_string(size >> 20) +
                " MiB to stage checkpoints: " + std::strerror(errno));
  }
  madvise(block, size, MADV_HUGEPAGE);
  bytes_ = {static_cast<std::byte*>(block), size};
  populate(bytes_);
  if (device_ == nullptr) return;
  try {
    pinned_ = device_->pin(bytes_);
  } catch (...) {
    release();  // memory that is not pinned is no arena
    throw;
  }
}

}  // namespace millrace
