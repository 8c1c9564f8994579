#include "millrace/runtime/device/cuda_device.h"

#include <cuda_runtime_api.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <utility>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/device/cuda_pack.h"
#include "millrace/runtime/device/device_error.h"

namespace millrace {
namespace {

void check(cudaError_t code, const char* call, const std::string& device) {
  if (code == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // a sticky one stays all the same
  throw DeviceError(call, device, code,
                    std::string(cudaGetErrorName(code)) + ", " + cudaGetErrorString(code),
                    is_sticky_cuda_error(code));
}

// Streams, events and memory belong to the device that is current when they are made, and a launch
// needs that of its stream. It stays current: setting another one back would make a context there.
void use_device(int index, const std::string& name) {
  int current = 0;
  check(cudaGetDevice(&current), "cudaGetDevice", name);
  if (index != current) check(cudaSetDevice(index), "cudaSetDevice", name);
}

// For calls that work whatever device is current: a thread that never chose one would make a
// context on GPU 0 with them.
void choose_device(int index, const std::string& name) {
  thread_local int chosen = -1;
  if (chosen == index) return;
  use_device(index, name);
  chosen = index;
}

class CudaEvent final : public DeviceEvent {
 public:
  CudaEvent(int index, std::string device, EventUse use)
      : index_(index), device_(std::move(device)), use_(use) {
    const unsigned flags =
        cudaEventBlockingSync | (use == EventUse::kTiming ? 0U : cudaEventDisableTiming);
    check(cudaEventCreateWithFlags(&event_, flags), "cudaEventCreateWithFlags", device_);
  }
  ~CudaEvent() override { static_cast<void>(cudaEventDestroy(event_)); }

  bool done() const override {
    choose_device(index_, device_);
    const cudaError_t code = cudaEventQuery(recorded("CudaEvent::done"));
    if (code == cudaErrorNotReady) return false;
    check(code, "cudaEventQuery", device_);
    return true;
  }
  void wait() const override {
    choose_device(index_, device_);
    check(cudaEventSynchronize(recorded("CudaEvent::wait")), "cudaEventSynchronize", device_);
  }
  std::chrono::nanoseconds since(const DeviceEvent& earlier) const override {
    const auto& other = dynamic_cast<const CudaEvent&>(earlier);
    if (use_ != EventUse::kTiming || other.use_ != EventUse::kTiming) {
      throw std::logic_error("CudaEvent::since: an event that is not for timing");
    }
    float ms = 0;
    const cudaEvent_t first = other.recorded("CudaEvent::since");
    check(cudaEventElapsedTime(&ms, first, recorded("CudaEvent::since")), "cudaEventElapsedTime",
          device_);
    return std::chrono::nanoseconds(static_cast<std::int64_t>(static_cast<double>(ms) * 1e6));
  }

  void record(cudaStream_t stream) {
    choose_device(index_, device_);
    check(cudaEventRecord(event_, stream), "cudaEventRecord", device_);
    recorded_.store(true);
  }
  cudaEvent_t recorded(const char* call) const {
    if (recorded_.load()) return event_;
    throw std::logic_error(std::string(call) + ": the event was never recorded");
  }

 private:
  const int index_;
  const std::string device_;
  const EventUse use_;
  cudaEvent_t event_ = nullptr;
  std::atomic<bool> recorded_{false};
};

class CudaStream final : public DeviceStream {
 public:
  CudaStream(Device& device, int index, cudaStream_t stream, bool owned)
      : device_(device), index_(index), name_(device.name()), stream_(stream), owned_(owned) {}
  ~CudaStream() override {
    if (owned_) static_cast<void>(cudaStreamDestroy(stream_));
  }

  Device& device() const noexcept override { return device_; }
  void record(DeviceEvent& event) override { dynamic_cast<CudaEvent&>(event).record(stream_); }
  void wait_for(const DeviceEvent& event) override {
    choose_device(index_, name_);
    const auto handle = dynamic_cast<const CudaEvent&>(event).recorded("CudaStream::wait_for");
    check(cudaStreamWaitEvent(stream_, handle, 0), "cudaStreamWaitEvent", name_);
  }
  void copy_to_host(std::span<std::byte> to, const std::byte* from) override {
    copy(to.data(), from, to.size(), cudaMemcpyDeviceToHost);
  }
  void copy_to_device(std::byte* to, std::span<const std::byte> from) override {
    copy(to, from.data(), from.size(), cudaMemcpyHostToDevice);
  }
  void pack(std::span<std::byte> to, std::span<const PackPiece> table) override {
    use_device(index_, name_);
    const int code = launch_pack(table.data(), table.size(), to.data(), stream_);
    check(static_cast<cudaError_t>(code), "launch_pack", name_);
  }
  void synchronize() override {
    choose_device(index_, name_);
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize", name_);
  }

 private:
  void copy(std::byte* to, const std::byte* from, std::size_t size, cudaMemcpyKind kind) {
    choose_device(index_, name_);
    check(cudaMemcpyAsync(to, from, size, kind, stream_), "cudaMemcpyAsync", name_);
  }

  Device& device_;
  const int index_;
  const std::string name_;
  const cudaStream_t stream_;
  const bool owned_;
};

class CudaPin final : public PinnedMemory {
 public:
  CudaPin(std::span<std::byte> memory, const std::string& device) : memory_(memory) {
    check(cudaHostRegister(memory.data(), memory.size(), cudaHostRegisterPortable),
          "cudaHostRegister", device);
  }
  ~CudaPin() override { static_cast<void>(cudaHostUnregister(memory_.data())); }

 private:
  const std::span<std::byte> memory_;
};

class CudaBuffer final : public DeviceBuffer {
 public:
  CudaBuffer(std::uint64_t bytes, const std::string& device)
      : DeviceBuffer(allocated(bytes, device)) {}
  ~CudaBuffer() override { static_cast<void>(cudaFree(data())); }

 private:
  static std::span<std::byte> allocated(std::uint64_t bytes, const std::string& device) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes), "cudaMalloc", device);
    return {static_cast<std::byte*>(memory), bytes};
  }
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int index) : index_(index), name_("cuda:" + std::to_string(index)) {}

  std::string name() const override { return name_; }
  DeviceMemory memory() const override {
    use_device(index_, name_);
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo", name_);
    return {free, total};
  }
  std::unique_ptr<DeviceStream> make_stream(StreamPriority priority) override {
    use_device(index_, name_);
    int least = 0, greatest = 0;
    check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange",
          name_);
    cudaStream_t stream = nullptr;
    const int level = priority == StreamPriority::kHigh ? greatest : least;
    check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, level),
          "cudaStreamCreateWithPriority", name_);
    return wrap(stream, true);
  }
  std::unique_ptr<DeviceEvent> make_event(EventUse use) override {
    use_device(index_, name_);
    return std::make_unique<CudaEvent>(index_, name_, use);
  }
  std::unique_ptr<PinnedMemory> pin(std::span<std::byte> memory) override {
    use_device(index_, name_);
    return std::make_unique<CudaPin>(memory, name_);
  }
  std::unique_ptr<DeviceBuffer> allocate(std::uint64_t bytes) override {
    use_device(index_, name_);
    return std::make_unique<CudaBuffer>(bytes, name_);
  }

  std::unique_ptr<DeviceStream> wrap(cudaStream_t stream, bool owned) {
    return std::make_unique<CudaStream>(*this, index_, stream, owned);
  }

 private:
  const int index_;
  const std::string name_;
};

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Without a driver at all the runtime calls it one of version 0.
[[noreturn]] void refuse_driver() {
  int driver = 0, runtime = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  static_cast<void>(cudaRuntimeGetVersion(&runtime));
  if (driver == 0) {
    throw ConfigError("device", "there is no NVIDIA driver on this machine: use the device cpu");
  }
  throw ConfigError("device", "the NVIDIA driver serves CUDA " + version_text(driver) +
                                  " and this build needs " + version_text(runtime) +
                                  ": install a newer driver");
}

}  // namespace

// After these the context is lost.
bool is_sticky_cuda_error(int code) noexcept {
  switch (code) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorDevicesUnavailable:
    case cudaErrorContained:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
    case cudaErrorUnknown:
      return true;
    default:
      return false;
  }
}

bool has_cuda() noexcept { return true; }

std::unique_ptr<Device> open_cuda_device(int index) {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess) static_cast<void>(cudaGetLastError());
  if (code == cudaErrorInsufficientDriver) refuse_driver();
  if (code == cudaErrorNoDevice || (code == cudaSuccess && count == 0)) {
    throw ConfigError("device",
                      "no GPU is visible: use the device cpu, or look at CUDA_VISIBLE_DEVICES");
  }
  check(code, "cudaGetDeviceCount", "cuda");
  if (index < 0 || index >= count) {
    throw ConfigError("device", "there is no cuda:" + std::to_string(index) + ", only cuda:0" +
                                    (count > 1 ? " to cuda:" + std::to_string(count - 1) : ""));
  }
  return std::make_unique<CudaDevice>(index);
}

std::unique_ptr<DeviceStream> borrow_cuda_stream(Device& device, void* stream) {
  return dynamic_cast<CudaDevice&>(device).wrap(static_cast<cudaStream_t>(stream), false);
}

}  // namespace millrace
