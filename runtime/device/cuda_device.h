// GPUs behind the interfaces of device.h, on the CUDA runtime API and one kernel of ours
// (cuda_pack.h): LibTorch is not needed, and no header of CUDA reaches who includes this.
//
// Every failing call is a DeviceError with call, code and text. One that is not sticky is taken off
// the runtime's own record, so that LibTorch does not report it a second time.
//
// A call leaves its device the current one of the calling thread. Who works with several on one
// thread sets LibTorch's anew.
//
// In a build without CUDA these functions exist and refuse (cuda_absent.cc).
#pragma once

#include <memory>

#include "millrace/runtime/device/device.h"

namespace millrace {

// Whether this build can open GPUs at all.
bool has_cuda() noexcept;

// GPU `index` of those that CUDA_VISIBLE_DEVICES leaves. Throws ConfigError for `device`, and says
// which it is: a build without CUDA, no driver or one that is too old, no GPU, or not so many.
std::unique_ptr<Device> open_cuda_device(int index);

// Whether a cudaError_t is one after which every later call fails (DeviceError).
bool is_sticky_cuda_error(int code) noexcept;

// A stream that is somebody else's, as a cudaStream_t: LibTorch's current one. It outlives the
// result, which does not destroy it. `device` is from open_cuda_device().
std::unique_ptr<DeviceStream> borrow_cuda_stream(Device& device, void* stream);

}  // namespace millrace
