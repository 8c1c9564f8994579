// A device: where tensors live and steps run. Makes the streams and events through which the engine
// talks to it, without knowing which device it is.
//
//   CpuDevice            threads in place of streams: the twin on which everything is tested
//   open_cuda_device()   a GPU, by the CUDA runtime; the tests link a fake one in its place
//
// Owned by whoever makes the strategy; outlives what it makes and what that is given to. Any thread
// may call it. A call that fails throws DeviceError. Destroying a stream waits for nothing that
// others could see: what was put in still runs, so its memory must stay until an event after it is
// done.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "millrace/runtime/device/device_event.h"
#include "millrace/runtime/device/device_stream.h"

namespace millrace {

// Work of a high stream is taken up first when several have some.
enum class StreamPriority : std::uint8_t { kHigh, kNormal };

struct DeviceMemory {
  std::uint64_t free = 0, total = 0;  // bytes
};

// Host memory that the device can copy to and from beside the host. The destructor unpins it; no
// copy may be under way then.
class PinnedMemory {
 public:
  virtual ~PinnedMemory() = default;
};

// Memory of the device, uninitialised, aligned to at least 16. Freed by the destructor; nothing
// that was put in may still use it then. Destroyed before its device.
class DeviceBuffer {
 public:
  virtual ~DeviceBuffer() = default;
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  std::byte* data() const noexcept { return memory_.data(); }
  std::uint64_t size() const noexcept { return memory_.size(); }
  std::span<std::byte> bytes() const noexcept { return memory_; }

 protected:
  explicit DeviceBuffer(std::span<std::byte> memory) noexcept : memory_(memory) {}

 private:
  const std::span<std::byte> memory_;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;  // "cpu", "cuda:1"
  virtual DeviceMemory memory() const = 0;

  virtual std::unique_ptr<DeviceStream> make_stream(StreamPriority priority) = 0;
  virtual std::unique_ptr<DeviceEvent> make_event(EventUse use) = 0;
  std::unique_ptr<DeviceEvent> make_event() { return make_event(EventUse::kOrder); }
  // Pins memory that exists and outlives the result. Slow (seconds for tens of GiB): before
  // training.
  virtual std::unique_ptr<PinnedMemory> pin(std::span<std::byte> memory) = 0;
  // `bytes` above 0. Before training, and so is freeing it or after: either may make the calling
  // thread wait for everything the device was given (cudaFree does).
  virtual std::unique_ptr<DeviceBuffer> allocate(std::uint64_t bytes) = 0;
};

}  // namespace millrace
