// The blocks of a small arena through which a large file streams.
//
// File byte b lies at arena byte b % bytes(). A block may be filled once the writer has passed the
// block whose place it takes. Not synchronised: the owner guards it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace millrace {

class BlockRing {
 public:
  BlockRing(std::uint64_t block_bytes, std::uint64_t blocks)
      : block_bytes_(block_bytes), blocks_(blocks) {}

  std::uint64_t bytes() const noexcept { return block_bytes_ * blocks_; }
  std::uint64_t block_bytes() const noexcept { return block_bytes_; }
  // Where a file byte lies in the arena.
  std::uint64_t place(std::uint64_t offset) const noexcept { return offset % bytes(); }
  // Whether file bytes before `end` may be filled in.
  bool open(std::uint64_t end) const noexcept {
    return end <= released_ / block_bytes_ * block_bytes_ + bytes();
  }
  // The writer is done with all bytes before `offset`.
  void release(std::uint64_t offset) noexcept { released_ = std::max(released_, offset); }

 private:
  std::uint64_t block_bytes_, blocks_;
  std::uint64_t released_ = 0;
};

}  // namespace millrace
