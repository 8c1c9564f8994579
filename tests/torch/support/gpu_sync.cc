#include "tests/torch/support/gpu_sync.h"

#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>

#include <stdexcept>

namespace millrace::test {
namespace {

int set_mode(int mode) {
  auto& state = c10::cuda::warning_state();
  const int before = static_cast<int>(state.get_sync_debug_mode());
  state.set_sync_debug_mode(static_cast<c10::cuda::SyncDebugMode>(mode));
  return before;
}
constexpr int kDisabled = static_cast<int>(c10::cuda::SyncDebugMode::L_DISABLED);

}  // namespace

ForbidSync::ForbidSync() { set_mode(static_cast<int>(c10::cuda::SyncDebugMode::L_ERROR)); }
ForbidSync::~ForbidSync() { set_mode(kDisabled); }
AllowSync::AllowSync() : before_(set_mode(kDisabled)) {}
AllowSync::~AllowSync() { set_mode(before_); }

std::vector<std::byte> read_device(std::span<const std::byte> memory) {
  std::vector<std::byte> bytes(memory.size());
  if (cudaDeviceSynchronize() != cudaSuccess ||
      cudaMemcpy(bytes.data(), memory.data(), bytes.size(), cudaMemcpyDeviceToHost) !=
          cudaSuccess) {
    throw std::runtime_error("reading the device's memory failed");
  }
  return bytes;
}

}  // namespace millrace::test
