// Host memory of our own that is pinned for a device: page-aligned, and it grows.
//
// Belongs to one owner and has no lock. No copy may be under way when it grows or goes.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "millrace/runtime/device/device.h"

namespace millrace {

class PinnedBuffer {
 public:
  // Empty. The device outlives it.
  explicit PinnedBuffer(Device& device) : device_(device) {}

  // At least `bytes` from now on; true when new memory was pinned for it, and the old contents are
  // lost. Slow then, as Device::pin. Throws DeviceError or std::bad_alloc and is empty after it.
  bool reserve(std::size_t bytes);
  std::span<std::byte> bytes() const noexcept { return {memory_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* memory) const noexcept;
  };

  Device& device_;
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t size_ = 0;
  std::unique_ptr<PinnedMemory> pin_;  // goes before the memory
};

}  // namespace millrace
