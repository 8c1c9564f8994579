// The CPU as a device that really is asynchronous: every stream is a thread, and "device memory" is
// any memory that nobody touches but through streams.
//
// What runs on it takes the same turns as on a GPU, in schedules drawn from a seed, so that a wait
// that is missing shows: as a wrong byte, or under ThreadSanitizer. It refuses what a GPU would
// silently make slow or wrong: copies to memory that is not pinned, waits for events that were
// never recorded, a stream or event of another device, a pack into or from a table in memory that
// was not allocated from it. A piece that leaves the buffer is a failure of the device.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <string_view>

#include "millrace/runtime/device/cpu_stream.h"
#include "millrace/runtime/device/device.h"

namespace millrace {

struct CpuDeviceOptions {
  // Each operation is delayed by up to this, drawn from the seed; 0: none is.
  std::chrono::microseconds longest_delay{0};
  std::uint32_t seed = 0;
  // Called on the stream's thread before each operation ("copy_to_host", "launch", ...). What it
  // throws is a sticky failure of the device: nothing runs after it, and every wait ends with it.
  // Who has met it may free the memory of copies.
  std::function<void(std::string_view operation)> probe = {};
};

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(CpuDeviceOptions options = {});
  ~CpuDevice() override;

  std::string name() const override { return "cpu"; }
  DeviceMemory memory() const override;  // of the machine
  std::unique_ptr<DeviceStream> make_stream(StreamPriority priority) override;
  std::unique_ptr<CpuStream> make_cpu_stream();  // the same, with launch()
  using Device::make_event;
  std::unique_ptr<DeviceEvent> make_event(EventUse use) override;
  std::unique_ptr<PinnedMemory> pin(std::span<std::byte> memory) override;
  std::unique_ptr<DeviceBuffer> allocate(std::uint64_t bytes) override;

  // Bytes that are pinned.
  std::uint64_t pinned() const;
  bool is_pinned(std::span<const std::byte> memory) const;
  // Bytes in buffers.
  std::uint64_t allocated() const;
  bool is_allocated(std::span<const std::byte> memory) const;

 private:
  friend class CpuStream;
  class Pin;
  class Buffer;
  using Ranges = std::multimap<const std::byte*, std::uint64_t>;
  std::uint64_t bytes_in(const Ranges& ranges) const;
  bool within(const Ranges& ranges, std::span<const std::byte> memory) const;

  std::string failure() const;  // of the device; empty while it works
  void fail(const std::string& what);
  void copy(std::span<std::byte> to, const std::byte* from);  // unless it has failed

  const CpuDeviceOptions options_;
  std::shared_mutex copying_;  // a failure waits for what is being copied
  mutable std::mutex mutex_;   // guards what follows
  std::uint32_t streams_ = 0;
  Ranges pins_, buffers_;
  std::string failure_;
};

}  // namespace millrace
