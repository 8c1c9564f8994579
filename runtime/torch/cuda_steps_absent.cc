#include "millrace/runtime/async/error.h"
#include "millrace/runtime/torch/cuda_steps.h"

namespace millrace {

std::unique_ptr<StepDevice> open_cuda_steps(std::unique_ptr<Device>, int) {
  throw ConfigError("device", "this LibTorch has no CUDA: use the device cpu");
}

}  // namespace millrace
