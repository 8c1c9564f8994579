// The arena: one reused, page-aligned block of memory laid out as the checkpoint file, or as a ring
// of blocks of it.
//
// Reserved before training and touched page by page then, because first touches cost ten times a
// copy. For a device it is pinned, too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "millrace/runtime/device/device.h"

namespace millrace {

class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // While empty: what is reserved from now on is pinned for `device`, which outlives the arena.
  void pin_for(Device& device) noexcept { device_ = &device; }
  // Makes at least `size` bytes resident. Keeps the block when it is large enough; otherwise the
  // old contents are lost. Throws Error when memory is refused.
  void reserve(std::uint64_t size);
  void release() noexcept;
  // All of it, which may be more than was asked for.
  std::span<std::byte> bytes() const noexcept { return bytes_; }

 private:
  Device* device_ = nullptr;
  std::span<std::byte> bytes_;
  std::unique_ptr<PinnedMemory> pinned_;
};

}  // namespace millrace
