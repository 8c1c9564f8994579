#include <cuda_runtime_api.h>

#include <map>
#include <stdexcept>

#include "tests/support/cuda_machine.h"

namespace millrace::test {
namespace {

constexpr std::size_t kScratchBytes = std::size_t{64} << 20;
constexpr int kScratchFills = 20;

std::string text_of(cudaError_t code) {
  return std::string(cudaGetErrorName(code)) + ", " + cudaGetErrorString(code);
}
void check_call(cudaError_t code, const char* call) {
  if (code != cudaSuccess) throw std::runtime_error(std::string(call) + ": " + text_of(code));
}

// A memset runs on a stream of the current device.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) {
    check_call(cudaGetDevice(&before_), "cudaGetDevice");
    check_call(cudaSetDevice(device), "cudaSetDevice");
  }
  ~CurrentDevice() { static_cast<void>(cudaSetDevice(before_)); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
};

class GpuMachine final : public CudaMachine {
 public:
  ~GpuMachine() override {
    for (const auto& [stream, lent] : lent_) {
      static_cast<void>(cudaStreamDestroy(stream));
      static_cast<void>(cudaFree(lent.scratch));
    }
  }

  // Non-blocking, as those of LibTorch's pool. The scratch is made here, because making it later
  // would wait for the device.
  void* stream(int device) override {
    const CurrentDevice current(device);
    cudaStream_t stream = nullptr;
    check_call(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    Lent& lent = lent_[stream];
    lent.device = device;
    check_call(cudaMalloc(&lent.scratch, kScratchBytes), "cudaMalloc");
    return stream;
  }

  void fill(void* stream, std::span<std::byte> memory, std::byte value) override {
    const auto handle = static_cast<cudaStream_t>(stream);
    const CurrentDevice current(lent_.at(handle).device);
    check_call(cudaMemsetAsync(memory.data(), std::to_integer<int>(value), memory.size(), handle),
               "cudaMemsetAsync");
  }
  void copy(void* stream, std::span<std::byte> to, std::span<const std::byte> from) override {
    const auto handle = static_cast<cudaStream_t>(stream);
    const CurrentDevice current(lent_.at(handle).device);
    check_call(
        cudaMemcpyAsync(to.data(), from.data(), from.size(), cudaMemcpyDeviceToDevice, handle),
        "cudaMemcpyAsync");
  }
  void hold_up(void* stream) override {
    const auto handle = static_cast<cudaStream_t>(stream);
    const CurrentDevice current(lent_.at(handle).device);
    for (int i = 0; i < kScratchFills; ++i) {
      check_call(cudaMemsetAsync(lent_.at(handle).scratch, i, kScratchBytes, handle),
                 "cudaMemsetAsync");
    }
  }

  // From memory that is not pinned cudaMemcpy returns before the device has the bytes.
  void write(std::span<std::byte> memory, std::span<const std::byte> bytes) override {
    check_call(cudaMemcpy(memory.data(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice),
               "cudaMemcpy");
    check_call(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize");
  }
  std::vector<std::byte> read(std::span<const std::byte> memory) override {
    std::vector<std::byte> bytes(memory.size());
    check_call(cudaMemcpy(bytes.data(), memory.data(), bytes.size(), cudaMemcpyDeviceToHost),
               "cudaMemcpy");
    return bytes;
  }

  std::vector<std::string> check() override {
    std::vector<std::string> found;
    const auto note = [&found](const char* call, cudaError_t code) {
      if (code != cudaSuccess) found.push_back(std::string(call) + ": " + text_of(code));
    };
    note("left on record", cudaGetLastError());
    for (const auto& [stream, lent] : lent_) {
      note("a stream's work", cudaStreamSynchronize(stream));
    }
    return found;
  }

 private:
  struct Lent {
    int device = 0;
    void* scratch = nullptr;
  };
  std::map<cudaStream_t, Lent> lent_;
};

}  // namespace

std::unique_ptr<CudaMachine> open_cuda_machine(std::uint32_t) {
  return std::make_unique<GpuMachine>();
}

}  // namespace millrace::test
