// Batches in, losses out, on the CPU twin.
#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "millrace/runtime/device/cpu_device.h"
#include "millrace/runtime/device/event_waiter.h"
#include "millrace/runtime/device/step_streams.h"
#include "tests/device/step_scene.h"
#include "tests/support/run_task.h"

namespace millrace {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

class CpuStepDevice final : public test::StepDevice {
 public:
  explicit CpuStepDevice(CpuDeviceOptions options)
      : device_(std::move(options)), train_(device_.make_cpu_stream()) {}
  DeviceStream& train() override { return *train_; }
  void launch(std::function<void()> kernel, std::vector<test::Use>) override {
    train_->launch(std::move(kernel));
  }
  void drain() override {
    try {
      train_->synchronize();
    } catch (const DeviceError&) {  // a failed device runs no kernel
    }
  }

 private:
  CpuDevice device_;
  std::unique_ptr<CpuStream> train_;
};

CpuDeviceOptions delayed(std::uint32_t seed) {
  CpuDeviceOptions options;
  options.seed = seed;
  options.longest_delay = std::chrono::microseconds(seed % 3 == 0 ? 0 : 100);
  return options;
}

#ifdef __SANITIZE_THREAD__
constexpr std::uint32_t kSeeds = 30;
#else
constexpr std::uint32_t kSeeds = 300;
#endif

TEST(CpuSteps, EveryStepReadsItsBatchAndEveryLossComesBack) {
  for (std::uint32_t seed = 1; seed <= kSeeds; ++seed) {
    CpuStepDevice device(delayed(seed));
    test::StepScene scene(device, seed);
    ASSERT_EQ(scene.run(), nullptr) << "seed " << seed;
    ASSERT_THAT(scene.losses(), ElementsAreArray(scene.expected())) << "seed " << seed;
  }
}

// Every operation failing, one after the other: what came back is right, and nobody hangs.
TEST(CpuSteps, AFailureAnywhereLeavesTheLossesBeforeIt) {
  for (int failing = 1; failing <= 150; ++failing) {
    std::atomic<int> operations{0};
    CpuDeviceOptions options = delayed(4);
    options.probe = [&](std::string_view) {
      if (++operations == failing) throw std::runtime_error("fell off the bus");
    };
    CpuStepDevice device(std::move(options));
    test::StepScene scene(device, 4);
    const std::exception_ptr failure = scene.run();
    auto expected = scene.expected();
    ASSERT_LE(scene.losses().size(), expected.size());
    expected.resize(scene.losses().size());
    ASSERT_THAT(scene.losses(), ElementsAreArray(expected)) << "failing " << failing;
    if (failure == nullptr) {
      ASSERT_EQ(scene.losses().size(), test::StepScene::kSteps);
      continue;
    }
    EXPECT_THAT([&] { std::rethrow_exception(failure); },
                ::testing::ThrowsMessage<DeviceError>(HasSubstr("fell off the bus")));
  }
}

TEST(CpuSteps, OfALongRunTheNewestSpansAreKept) {
  CpuDevice device;
  const auto train = device.make_cpu_stream();
  StepStreams steps(*train);
  steps.spans();  // from now on
  const std::byte batch{};
  const std::span<const std::byte> part(&batch, 1);
  constexpr std::int64_t kSteps = 2 * StepStreams::kKeptSpans + 10;
  for (std::int64_t step = 0; step < kSteps; ++step) {
    steps.bring({&part, 1});
    steps.used();
    steps.stepped();
    train->synchronize();
    ASSERT_LT(steps.spans().size(), 2 * StepStreams::kKeptSpans);
  }
  const auto spans = steps.spans();
  ASSERT_GE(spans.size(), StepStreams::kKeptSpans);
  EXPECT_EQ(spans.back().number, kSteps);
  for (std::size_t i = 1; i < spans.size(); ++i) {
    ASSERT_EQ(spans[i].number, spans[i - 1].number + 1);
  }
  EXPECT_EQ(steps.pending(), nullptr);
}

// The optimizer's kernels end after every copy of their batch.
TEST(CpuSteps, TheLastSpanHasEndedWhenDrained) {
  CpuDevice device;
  const auto train = device.make_cpu_stream();
  EventWaiter waiter;
  StepStreams steps(*train);
  steps.spans();  // from now on
  const std::byte batch{};
  const std::span<const std::byte> part(&batch, 1);
  steps.bring({&part, 1});
  steps.used();
  train->launch([] { std::this_thread::sleep_for(std::chrono::milliseconds(100)); });
  steps.stepped();
  test::run_task(steps.drain(waiter));
  EXPECT_THAT(steps.spans(), ::testing::SizeIs(1));
}

}  // namespace
}  // namespace millrace
