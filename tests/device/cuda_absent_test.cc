// A build without CUDA, linked with what it has in place of the back-end.
#include <gmock/gmock.h>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/device/cpu_device.h"
#include "millrace/runtime/device/cuda_device.h"
#include "millrace/runtime/device/nvtx_ranges.h"

namespace millrace {
namespace {

TEST(NoCuda, RefusesGpusAndSaysWhatToDo) {
  EXPECT_FALSE(has_cuda());
  EXPECT_THAT(
      [] { open_cuda_device(0); },
      ::testing::ThrowsMessage<ConfigError>(::testing::HasSubstr(
          "this build has no CUDA support: build it where nvcc and a LibTorch with CUDA are, "
          "or use the device cpu")));
  CpuDevice device;
  EXPECT_THROW(borrow_cuda_stream(device, nullptr), std::logic_error);
  EXPECT_FALSE(is_sticky_cuda_error(700));
  push_nvtx_range("nothing");
  pop_nvtx_range();
}

}  // namespace
}  // namespace millrace
