#include "millrace/runtime/device/cpu_device.h"

#include <sys/sysinfo.h>

#include <cstring>
#include <iterator>
#include <utility>

namespace millrace {

class CpuDevice::Pin final : public PinnedMemory {
 public:
  Pin(CpuDevice& device, std::span<std::byte> memory) : device_(device) {
    const std::scoped_lock lock(device_.mutex_);
    place_ = device_.pins_.emplace(memory.data(), memory.size());
  }
  ~Pin() override {
    const std::scoped_lock lock(device_.mutex_);
    device_.pins_.erase(place_);
  }

 private:
  CpuDevice& device_;
  Ranges::iterator place_;
};

class CpuDevice::Buffer final : public DeviceBuffer {
 public:
  Buffer(CpuDevice& device, std::uint64_t bytes)
      : DeviceBuffer({new std::byte[bytes], bytes}), device_(device) {
    const std::scoped_lock lock(device_.mutex_);
    place_ = device_.buffers_.emplace(data(), size());
  }
  ~Buffer() override {
    {
      const std::scoped_lock lock(device_.mutex_);
      device_.buffers_.erase(place_);
    }
    delete[] data();
  }

 private:
  CpuDevice& device_;
  Ranges::iterator place_;
};

CpuDevice::CpuDevice(CpuDeviceOptions options) : options_(std::move(options)) {}
CpuDevice::~CpuDevice() = default;

DeviceMemory CpuDevice::memory() const {
  struct sysinfo info {};
  if (sysinfo(&info) != 0) return {};
  return {std::uint64_t{info.freeram} * info.mem_unit,
          std::uint64_t{info.totalram} * info.mem_unit};
}

std::unique_ptr<CpuStream> CpuDevice::make_cpu_stream() {
  std::uint32_t number = 0;
  {
    const std::scoped_lock lock(mutex_);
    number = streams_++;
  }
  return std::make_unique<CpuStream>(*this, options_.seed * 7919 + number + 1);
}

std::unique_ptr<DeviceStream> CpuDevice::make_stream(StreamPriority) { return make_cpu_stream(); }

std::unique_ptr<DeviceEvent> CpuDevice::make_event(EventUse use) {
  return std::make_unique<CpuEvent>(*this, use);
}

std::unique_ptr<PinnedMemory> CpuDevice::pin(std::span<std::byte> memory) {
  return std::make_unique<Pin>(*this, memory);
}

std::unique_ptr<DeviceBuffer> CpuDevice::allocate(std::uint64_t bytes) {
  return std::make_unique<Buffer>(*this, bytes);
}

std::uint64_t CpuDevice::pinned() const { return bytes_in(pins_); }
std::uint64_t CpuDevice::allocated() const { return bytes_in(buffers_); }
bool CpuDevice::is_pinned(std::span<const std::byte> memory) const { return within(pins_, memory); }
bool CpuDevice::is_allocated(std::span<const std::byte> memory) const {
  return within(buffers_, memory);
}

std::uint64_t CpuDevice::bytes_in(const Ranges& ranges) const {
  const std::scoped_lock lock(mutex_);
  std::uint64_t bytes = 0;
  for (const auto& [at, size] : ranges) bytes += size;
  return bytes;
}

bool CpuDevice::within(const Ranges& ranges, std::span<const std::byte> memory) const {
  const std::scoped_lock lock(mutex_);
  const auto after = ranges.upper_bound(memory.data());
  if (after == ranges.begin()) return false;
  const auto& [at, size] = *std::prev(after);
  return memory.data() + memory.size() <= at + size;
}

std::string CpuDevice::failure() const {
  const std::scoped_lock lock(mutex_);
  return failure_;
}

void CpuDevice::fail(const std::string& what) {
  const std::scoped_lock copies(copying_);
  const std::scoped_lock lock(mutex_);
  if (failure_.empty()) failure_ = what;
}

void CpuDevice::copy(std::span<std::byte> to, const std::byte* from) {
  const std::shared_lock running(copying_);
  if (failure().empty()) std::memcpy(to.data(), from, to.size());
}

}  // namespace millrace
