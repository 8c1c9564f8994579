// BatchMemory: where a loader puts its batches, so that they need not be copied on the host before
// they go to a device.
#pragma once

#include <cstddef>
#include <span>

namespace millrace {

class BatchMemory {
 public:
  // Room for one field of each of these sizes, in bytes; what is in it is undefined. The batch
  // stays there until room is asked for again; asked again without having been used, it is the
  // same memory. Empty when none is free yet: then the batch is put elsewhere. Train context; may
  // throw DeviceError.
  virtual std::span<std::byte* const> room(std::span<const std::size_t> field_bytes) = 0;

 protected:
  ~BatchMemory() = default;
};

}  // namespace millrace
