// The CPU device of a scene.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <utility>

#include "millrace/runtime/device/cpu_device.h"
#include "tests/staging/device_scene.h"

namespace millrace::test {

class CpuScene final : public SceneDevice {
 public:
  explicit CpuScene(std::uint32_t seed)
      : device_(options(seed)), train_(device_.make_cpu_stream()) {}
  DeviceStream& train() override { return *train_; }
  void launch(std::function<void()> kernel) override { train_->launch(std::move(kernel)); }
  void drain() override { train_->synchronize(); }
  std::unique_ptr<DeviceStream> blocked_until(std::shared_future<void> opened) override {
    auto stream = device_.make_cpu_stream();
    stream->launch([opened] { opened.wait(); });
    return stream;
  }

 private:
  static CpuDeviceOptions options(std::uint32_t seed) {
    CpuDeviceOptions options;
    options.seed = seed;
    options.longest_delay = std::chrono::microseconds(seed % 3 == 0 ? 0 : 150);
    return options;
  }
  CpuDevice device_;
  std::unique_ptr<CpuStream> train_;
};

}  // namespace millrace::test
