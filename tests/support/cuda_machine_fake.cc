#include <algorithm>
#include <array>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "tests/support/cuda_machine.h"
#include "tests/support/fake_cuda/fake_cuda.h"

namespace millrace::test {
namespace {

constexpr int kDevices = 2;

FakeCudaOptions options(std::uint32_t seed) {
  FakeCudaOptions made;
  made.seed = seed;
  made.longest_delay = std::chrono::microseconds(50);
  made.devices = kDevices;
  return made;
}

// What a GPU would fault on is an exception here, because it is the test's own mistake.
class FakeMachine final : public CudaMachine {
 public:
  explicit FakeMachine(std::uint32_t seed) : cuda_(options(seed)) {
    for (int device = 0; device < kDevices; ++device) host_.at(device) = cuda_.stream(device);
  }

  void* stream(int device) override { return cuda_.stream(device); }

  void fill(void* stream, std::span<std::byte> memory, std::byte value) override {
    device_of(memory);
    cuda_.launch(handle(stream), [memory, value] { std::ranges::fill(memory, value); },
                 {{memory, true}});
  }
  void copy(void* stream, std::span<std::byte> to, std::span<const std::byte> from) override {
    device_of(to);
    device_of(from);
    cuda_.launch(handle(stream), [to, from] { std::ranges::copy(from, to.begin()); },
                 {{to, true}, {from}});
  }
  void hold_up(void* stream) override {
    cuda_.launch(handle(stream), [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); });
  }

  void write(std::span<std::byte> memory, std::span<const std::byte> bytes) override {
    run_on_host_stream([&] { std::ranges::copy(bytes, memory.begin()); }, {memory, true});
  }
  std::vector<std::byte> read(std::span<const std::byte> memory) override {
    std::vector<std::byte> bytes(memory.size());
    run_on_host_stream([&] { std::ranges::copy(memory, bytes.begin()); }, {memory});
    return bytes;
  }

  std::vector<std::string> check() override { return cuda_.check(); }

 private:
  static cudaStream_t handle(void* stream) { return static_cast<cudaStream_t>(stream); }
  std::size_t device_of(std::span<const std::byte> memory) const {
    const int device = cuda_.device_of(memory);
    if (device < 0) throw std::runtime_error("memory that is no device's");
    return static_cast<std::size_t>(device);
  }
  // A stream of its own: what the host has not seen done is a violation, as for every stream.
  void run_on_host_stream(std::function<void()> access, const Use& use) {
    const cudaStream_t stream = host_.at(device_of(use.memory));
    cuda_.launch(stream, std::move(access), {use});
    cuda_.drain(stream);
  }

  FakeCuda cuda_;
  std::array<cudaStream_t, kDevices> host_{};
};

}  // namespace

std::unique_ptr<CudaMachine> open_cuda_machine(std::uint32_t seed) {
  return std::make_unique<FakeMachine>(seed);
}

}  // namespace millrace::test
