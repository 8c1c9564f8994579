// The snapshot pipeline, alone and on two devices at once, on the fake and on GPUs.
#include <exception>
#include <thread>

#include "tests/device/cuda_save_run.h"
#include "tests/device/cuda_step_run.h"

namespace millrace {
namespace {

using test::CudaConformance;
using test::CudaSaveRun;

StagingOptions small_blocks() {
  StagingOptions options;
  options.block_bytes = 64 << 10;
  return options;
}

TEST_F(CudaConformance, EverySaveHoldsTheBytesAtCaptureInEveryMode) {
  for (const StageMode mode : {StageMode::kLazy, StageMode::kEager, StageMode::kBlocking}) {
    SCOPED_TRACE(stage_mode_name(mode));
    CudaSaveRun saves(*machine_, *train_, mode, small_blocks(), 1);
    EXPECT_FALSE(saves.streams());
    saves.run();
  }
}

TEST_F(CudaConformance, AStateLargerThanTheBudgetStreamsTheBytesAtCapture) {
  StagingOptions options = small_blocks();
  options.memory_budget = 1 << 20;
  CudaSaveRun saves(*machine_, *train_, StageMode::kLazy, options, 2);
  EXPECT_TRUE(saves.streams());
  saves.run();
}

// Saves and steps of each on a thread of its own; both begin with the first as current device.
TEST_F(CudaConformance, TwoDevicesAreUsedAtOnceInOneProcess) {
  if (const std::string reason = machine_->why_not(1); !reason.empty()) GTEST_SKIP() << reason;
  const auto other = open_cuda_device(1);
  EXPECT_EQ(other->name(), "cuda:1");
  test::LentStream other_train(*machine_, *other, 1);
  const auto use = [this](test::LentStream& train, StageMode mode, std::uint32_t seed) {
    try {
      CudaSaveRun(*machine_, train, mode, small_blocks(), seed).run();
      test::CudaStepRun(*machine_, train).run();
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
  };
  std::jthread first([&] { use(*train_, StageMode::kLazy, 3); });
  std::jthread second([&] { use(other_train, StageMode::kEager, 4); });
}

}  // namespace
}  // namespace millrace
