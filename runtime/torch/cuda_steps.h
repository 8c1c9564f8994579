// Steps of LibTorch on a GPU. Everything that a fake of the CUDA runtime cannot stand for is in
// cuda_steps.cc:
//
//   - LibTorch's current stream and device, which are the train thread's own
//   - its caching allocator: who owns memory, and which stream may use it
//   - its errors
//
// and in these lines elsewhere, which LibTorch itself tells apart by a tensor's device:
//
//   - single_device.cc   GeneratorState, moved(): the device's generator, the move of the net
//   - fused_step.cc      run_on_device(), run_kernel(): one kernel call for each type
//   - tensor_bytes.cc    tensor_over() of an address on the device
//   - storage_table.cc   CapturedStorage::on_device
//
// Internal to step_device.cc. In a build without CUDA it refuses (cuda_steps_absent.cc).
#pragma once

#include <memory>

#include "millrace/runtime/device/device.h"
#include "millrace/runtime/torch/step_device.h"

namespace millrace {

// `device` is GPU `index`.
std::unique_ptr<StepDevice> open_cuda_steps(std::unique_ptr<Device> device, int index);

}  // namespace millrace
