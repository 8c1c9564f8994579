// cuda_device.h in a build without CUDA.
#include <stdexcept>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/device/cuda_device.h"

namespace millrace {

bool has_cuda() noexcept { return false; }
bool is_sticky_cuda_error(int) noexcept { return false; }

std::unique_ptr<Device> open_cuda_device(int) {
  throw ConfigError("device",
                    "this build has no CUDA support: build it where nvcc and a LibTorch with CUDA "
                    "are, or use the device cpu");
}

std::unique_ptr<DeviceStream> borrow_cuda_stream(Device&, void*) {
  throw std::logic_error("borrow_cuda_stream: this build has no CUDA support");
}

}  // namespace millrace
