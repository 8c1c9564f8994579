// Small storages, packed, on the CUDA back-end and a fake of its runtime.
#include <gmock/gmock.h>
#include <unistd.h>

#include <future>
#include <map>
#include <thread>

#include "millrace/runtime/device/device_error.h"
#include "tests/staging/cuda_scene.h"
#include "tests/staging/pack_scene.h"
#include "tests/support/hold.h"

namespace millrace {
namespace {

using test::Defect;
using test::FakeCuda;
using test::FakeCudaOptions;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(CudaDevicePack, ThreeThousandSmallStoragesAreWhatABlockingSaveOnTheHostWrites) {
  for (std::uint32_t seed = 1; seed <= test::seeds(40, 6); ++seed) {
    FakeCuda cuda(test::fake_options(seed));
    {
      test::CudaScene device(cuda);
      test::PackScene scene(device, {.seed = seed});
      cuda.forbid_waiting();
      ASSERT_EQ(test::wrong_files(scene), 0) << "seed " << seed;
      cuda.allow_waiting();
    }
    ASSERT_THAT(cuda.check(), IsEmpty()) << "seed " << seed;
  }
}

TEST(CudaDevicePack, WithoutADefectHeldCopiesBreakNoRule) {
  FakeCuda cuda;
  {
    test::CudaScene device(cuda);
    test::HeldCopies scene(device, Defect::kNone);
    auto snapshot = scene.begin();
    scene.open();
    EXPECT_TRUE(scene.right(snapshot));
    snapshot.reset();
    EXPECT_TRUE(scene.right(scene.begin()));
  }
  EXPECT_THAT(cuda.check(), IsEmpty());
}

TEST(CudaDevicePack, APackThatDoesNotWaitForTheCopyOfTheOneBeforeIsCaught) {
  FakeCuda cuda;
  test::CudaScene device(cuda);
  test::HeldCopies scene(device, Defect::kPackDoesNotWait);
  const auto snapshot = scene.begin();
  EXPECT_THAT(cuda.violations(),
              Contains(HasSubstr("a pack writes device memory that cudaMemcpyAsync "
                                 "may still be reading")));
  scene.open();
  EXPECT_FALSE(scene.right(snapshot));
}

TEST(CudaDevicePack, ASlotUsedAgainBeforeItsCopiesAreDoneIsCaught) {
  FakeCuda cuda;
  test::CudaScene device(cuda);
  test::HeldCopies scene(device, Defect::kHostDoesNotWait);
  EXPECT_FALSE(scene.right(scene.begin()));
  EXPECT_THAT(cuda.violations(), IsEmpty());
  scene.begin()->wait_all();
  EXPECT_THAT(cuda.violations(), Contains(HasSubstr("copy under way is used again")));
  scene.open();
}

// A save is given up while the device has not even begun: the next one, in the same arena, waits.
TEST(CudaDevicePack, ASlotGivenBackIsUsedAgainWhenItsCopiesAreDone) {
  FakeCuda cuda;
  {
    test::CudaScene device(cuda);
    test::LiveState state(std::vector<std::uint64_t>(10, 100));
    for (CapturedStorage& storage : state.captured) storage.on_device = true;
    cuda.own(state.live);
    {
      Staging staging;
      staging.attach(device.train());
      staging.reserve(state.captured);
      std::promise<void> open;
      device.launch([opened = open.get_future().share()] { opened.wait(); });
      staging.begin(state.captured, StageMode::kEager).reset();
      std::thread opener([&open, train = gettid()] {
        test::wait_until_asleep(train);
        open.set_value();
      });
      EXPECT_EQ(test::file_of(staging.begin(state.captured, StageMode::kEager)),
                state.expected_file());
      opener.join();
    }
    cuda.disown(state.live);
  }
  EXPECT_THAT(cuda.check(), IsEmpty());
}

#ifndef __SANITIZE_THREAD__  // a discarded snapshot's copies may read what is being written
// Every call failing, one after the other: a file is whole or missing with the reason, nothing is
// given back or used again while a pack or a copy is under way, and the next save is whole.
TEST(CudaDevicePack, EveryCallFailingOnceLosesNothingElse) {
  for (const bool sticky : {false, true}) {
    for (std::uint64_t call = 1;; ++call) {
      FakeCudaOptions options = test::fake_options(4);
      options.failing_call = call;
      options.sticky = sticky;
      options.error = sticky ? cudaErrorIllegalAddress : cudaErrorMemoryAllocation;
      FakeCuda cuda(options);
      bool over = false;
      try {
        test::CudaScene device(cuda);
        test::PackScene scene(device, {.seed = 4, .storages = 60});
        int missing = 0;
        for (int save = 0; save < 2; ++save) {
          for (const auto& outcome : scene.save_twice()) {
            if (outcome.file) {
              ASSERT_EQ(outcome.file, outcome.expected) << call;
            } else {
              ASSERT_THAT(outcome.reason, HasSubstr("cudaErrorOfTheFake")) << call;
              ++missing;
            }
          }
        }
        over = cuda.call_count() < call;
        ASSERT_LE(missing, over ? 0 : sticky ? 4 : 1) << call;
      } catch (const DeviceError& error) {  // before anything was captured
        ASSERT_THAT(error.what(), HasSubstr("cudaErrorOfTheFake"));
      }
      ASSERT_THAT(cuda.check(), IsEmpty()) << (sticky ? "lost at " : "failed ") << call;
      if (over) break;
    }
  }
}
#endif

using Calls = std::map<std::string, std::uint64_t>;

// Of the third save of 10,000 small storages, some of which may change at any time.
Calls calls_of_a_save(std::size_t any_time) {
  FakeCuda cuda;
  Calls before, after;
  {
    test::CudaScene device(cuda);
    test::LiveState state(std::vector<std::uint64_t>(10'000, 100));
    for (CapturedStorage& storage : state.captured) storage.on_device = true;
    for (std::size_t i = 0; i < any_time; ++i) state.captured[i].mutation = Mutation::kAnyTime;
    cuda.own(state.live);
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
      cuda.allow_waiting();
    }
    cuda.disown(state.live);
  }
  EXPECT_THAT(cuda.check(), IsEmpty());
  Calls calls;
  for (const auto& [name, count] : after) {
    if (count > before[name]) calls[name] = count - before[name];
  }
  return calls;
}

// None of them by storage, none that makes, frees or pins memory, none that uploads a table.
TEST(CudaDevicePack, CallsOfASaveOfTenThousandSmallStorages) {
  EXPECT_EQ(calls_of_a_save(0), (Calls{{"cudaEventRecord", 1 + 1},
                                       {"cudaEventSynchronize", 1},
                                       {"cudaGetDevice", 1},
                                       {"cudaMemcpyAsync", 1},
                                       {"cudaStreamWaitEvent", 1 + 1},
                                       {"launch_pack", 1}}));
  // What may change at any time is a pack of its own.
  EXPECT_EQ(calls_of_a_save(2'000), (Calls{{"cudaEventRecord", 1 + 2},
                                           {"cudaEventSynchronize", 2},
                                           {"cudaGetDevice", 2},
                                           {"cudaMemcpyAsync", 2},
                                           {"cudaStreamWaitEvent", 1 + 2},
                                           {"launch_pack", 2}}));
}

}  // namespace
}  // namespace millrace
