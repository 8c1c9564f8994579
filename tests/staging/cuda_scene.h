// The fake of the CUDA runtime as the device of a scene.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <utility>

#include "millrace/runtime/device/cuda_device.h"
#include "tests/staging/device_scene.h"
#include "tests/support/fake_cuda/fake_cuda.h"

namespace millrace::test {

class CudaScene final : public SceneDevice {
 public:
  explicit CudaScene(FakeCuda& cuda)
      : cuda_(cuda),
        device_(open_cuda_device(0)),
        stream_(cuda.stream()),
        train_(borrow_cuda_stream(*device_, stream_)) {}
  DeviceStream& train() override { return *train_; }
  void launch(std::function<void()> kernel) override { cuda_.launch(stream_, std::move(kernel)); }
  void drain() override { cuda_.drain(stream_); }
  std::unique_ptr<DeviceStream> blocked_until(std::shared_future<void> opened) override {
    const cudaStream_t stream = cuda_.stream();
    cuda_.launch(stream, [opened] { opened.wait(); });
    return borrow_cuda_stream(*device_, stream);
  }
  void own(std::span<std::byte> memory) override { cuda_.own(memory); }
  void disown(std::span<std::byte> memory) override { cuda_.disown(memory); }

 private:
  FakeCuda& cuda_;
  std::unique_ptr<Device> device_;
  cudaStream_t stream_;
  std::unique_ptr<DeviceStream> train_;
};

inline FakeCudaOptions fake_options(std::uint32_t seed) {
  FakeCudaOptions options;
  options.seed = seed;
  options.longest_delay = std::chrono::microseconds(seed % 3 == 0 ? 0 : 100);
  return options;
}

}  // namespace millrace::test
