// The snapshot pipeline on the CUDA back-end and a fake of its runtime.
#include <gmock/gmock.h>

#include "millrace/runtime/device/device_error.h"
#include "tests/staging/cuda_scene.h"

namespace millrace {
namespace {

using test::FakeCuda;
using test::FakeCudaOptions;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Files that are wrong or missing, of two saves.
int wrong_files(FakeCuda& cuda, std::uint32_t seed, bool deaf) {
  test::CudaScene device(cuda);
  test::Scene scene(device, seed, deaf);
  cuda.forbid_waiting();
  int wrong = 0;
  for (int save = 0; save < 2; ++save) {
    const auto outcome = scene.save();
    wrong += outcome.file == outcome.expected ? 0 : 1;
  }
  cuda.allow_waiting();
  return wrong;
}

TEST(CudaSnapshot, HoldsWhatWasCapturedAndBreaksNoRuleInAThousandSchedules) {
  for (std::uint32_t seed = 1; seed <= test::seeds(1000, 50); ++seed) {
    FakeCuda cuda(test::fake_options(seed));
    ASSERT_EQ(wrong_files(cuda, seed, false), 0) << "seed " << seed;
    ASSERT_THAT(cuda.check(), IsEmpty()) << "seed " << seed;
  }
}

#ifndef __SANITIZE_THREAD__  // there the same defect is a data race
TEST(CudaSnapshot, ATrainStreamThatDoesNotWaitIsCaught) {
  int caught = 0;
  for (std::uint32_t seed = 1; seed <= 40; ++seed) {
    FakeCuda cuda(test::fake_options(seed));
    caught += wrong_files(cuda, seed, true) > 0 ? 1 : 0;
  }
  EXPECT_GE(caught, 10);
}
#endif

#ifndef __SANITIZE_THREAD__  // a discarded snapshot's copies may read what is being written:
                             // rubbish
// Every call failing, one after the other: a file is whole or missing with the reason, nobody
// hangs, nothing is left behind, and once the failure is over the next save is whole again.
TEST(CudaSnapshot, EveryCallFailingOnceLosesNothingElse) {
  for (const bool sticky : {false, true}) {
    for (std::uint64_t call = 1;; ++call) {
      FakeCudaOptions options = test::fake_options(3);
      options.failing_call = call;
      options.sticky = sticky;
      options.error = sticky ? cudaErrorIllegalAddress : cudaErrorMemoryAllocation;
      FakeCuda cuda(options);
      bool over = false;
      try {
        test::CudaScene device(cuda);
        test::Scene scene(device, 3);
        for (int save = 0; save < 3; ++save) {
          const bool failed_before = cuda.call_count() >= call;
          const auto outcome = scene.save();
          if (outcome.file) {
            ASSERT_EQ(outcome.file, outcome.expected) << call;
          } else {
            ASSERT_THAT(outcome.reason, HasSubstr("cudaErrorOfTheFake")) << call;
            ASSERT_TRUE(sticky || !failed_before) << call << ": failed twice";
          }
        }
        over = cuda.call_count() < call;
      } catch (const DeviceError& error) {  // before anything was captured
        ASSERT_THAT(error.what(), HasSubstr("cudaErrorOfTheFake"));
      }
      ASSERT_THAT(cuda.check(), IsEmpty()) << (sticky ? "lost at " : "failed ") << call;
      if (over) break;
    }
  }
}
#endif

// Steady state: what a save costs in calls, and that none of them waits, makes or pins anything.
TEST(CudaSnapshot, CallsOfASave) {
  FakeCuda cuda;
  test::CudaScene device(cuda);
  test::LiveState state({80 * SliceTable::kSliceBytes, 100, 200, 300});
  for (CapturedStorage& storage : state.captured) storage.on_device = true;
  state.captured[3].mutation = Mutation::kAnyTime;
  cuda.own(state.live);
  std::map<std::string, std::uint64_t> before, after;
  {
    Staging staging;
    staging.attach(device.train());
    staging.reserve(state.captured);
    cuda.forbid_waiting();
    for (int save = 0; save < 3; ++save) {
      before = cuda.calls();
      auto snapshot = staging.begin(state.captured, StageMode::kLazy);
      test::Writer writer(std::exchange(snapshot, nullptr), 1 << 20);
      staging.gate().writable_all();
      EXPECT_EQ(writer.file(), state.expected_file());
      after = cuda.calls();
    }
  }
  std::map<std::string, std::uint64_t> calls;
  for (const auto& [name, count] : after) {
    if (count > before[name]) calls[name] = count - before[name];
  }
  // Four chunks: what may change at any time, then 8 + 8 + 4 MiB, the small ones with the last.
  EXPECT_EQ(calls, (std::map<std::string, std::uint64_t>{{"cudaEventRecord", 1 + 4},
                                                         {"cudaEventSynchronize", 4},
                                                         {"cudaMemcpyAsync", 1 + 3 + 2},
                                                         {"cudaStreamWaitEvent", 1 + 1 + 1}}));
  cuda.disown(state.live);
  EXPECT_THAT(cuda.check(), IsEmpty());
}

}  // namespace
}  // namespace millrace
