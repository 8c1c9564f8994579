// A training run in small on the CUDA back-end and a fake of its runtime: batches, losses, scores
// and checkpoints at once, and what it costs in calls and pinned memory.
#include <gmock/gmock.h>

#include <cstring>
#include <map>

#include "millrace/runtime/device/cuda_device.h"
#include "millrace/runtime/device/device_error.h"
#include "millrace/runtime/device/event_waiter.h"
#include "millrace/runtime/device/step_streams.h"
#include "millrace/runtime/staging/staging.h"
#include "tests/support/fake_cuda/fake_cuda.h"
#include "tests/support/images.h"
#include "tests/support/live_state.h"
#include "tests/support/run_task.h"

namespace millrace {
namespace {

using test::FakeCuda;
using test::FakeCudaOptions;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr int kSteps = 12, kWarmUp = 5;

float loss_of(std::span<const std::byte> batch) {
  float loss = 1;
  for (const std::byte byte : batch) loss = loss * 0.5f + static_cast<float>(byte);
  return loss;
}

std::vector<std::byte> batch_of(int step) {
  return test::pattern(700 + 100 * static_cast<std::size_t>(step % 3),
                       static_cast<std::uint32_t>(step));
}

class Training {
 public:
  // State of four storages, 1.5 MiB; the last one is written by forward.
  Training(FakeCuda& cuda, std::uint64_t state_bytes = std::uint64_t{1} << 20)
      : cuda_(cuda),
        device_(open_cuda_device(0)),
        stream_(cuda.stream()),
        train_(borrow_cuda_stream(*device_, stream_)),
        result_(device_->allocate(4096)),
        state_({state_bytes, state_bytes / 2, 300, 100}),
        steps_(*train_) {
    for (CapturedStorage& storage : state_.captured) storage.on_device = true;
    state_.captured[3].mutation = Mutation::kAnyTime;
    cuda_.own(state_.live);
    owned_ = true;
    staging_.attach(*train_);
    staging_.reserve(state_.captured);
  }
  ~Training() {
    try {
      test::run_task(steps_.drain(waiter_));
    } catch (const DeviceError&) {
    }
    cuda_.drain(stream_);
    cuda_.allow_waiting();
    if (owned_) cuda_.disown(state_.live);
  }

  void catch_up() {
    while (const DeviceEvent* const event = steps_.pending()) {
      test::run_task(waiter_.wait(*event));
    }
  }

  // Forward and backward read the batch and write BatchNorm's part, the optimizer the rest.
  // Two of three batches are put where they go to the device from, as the loader does it.
  void step(int number) {
    const auto batch = batch_of(number);
    std::span<const std::byte> part = batch;
    const std::size_t size = batch.size();
    if (number % 3 != 0) {
      if (const auto room = steps_.room({&size, 1}); !room.empty()) {
        std::ranges::copy(batch, room[0]);
        part = {room[0], size};
        ++in_room_;
      }
    }
    catch_up();
    const std::span there(steps_.bring({&part, 1}).front(), batch.size());
    const auto loss = result_->bytes().first(sizeof(float));
    const auto norm = state_.storage(3);
    const auto forward = [there, loss, norm] {
      const float value = loss_of(there);
      std::memcpy(loss.data(), &value, sizeof value);
      test::LiveState::scribble(norm);
    };
    cuda_.launch(stream_, forward, {{there, false}, {loss, true}, {norm, true}});
    EXPECT_EQ(steps_.send(loss.data()), static_cast<std::uint32_t>(number));
    steps_.used();
    staging_.gate().writable_all();
    for (std::size_t i = 0; i < 3; ++i) {
      const auto storage = state_.storage(i);
      const auto write = [storage] { test::LiveState::scribble(storage); };
      cuda_.launch(stream_, write, {{storage, true}});
    }
    steps_.stepped();
    // Both slots have had the largest batch: from here on nothing grows.
    if (number == kWarmUp) cuda_.forbid_waiting();
  }

  std::vector<std::byte> scores(std::size_t bytes) {
    catch_up();
    const auto batch = batch_of(0);
    const std::span<const std::byte> part = batch;
    steps_.bring({&part, 1});
    const auto to = result_->bytes().subspan(sizeof(float), bytes);
    const auto predict = [to] { std::fill(to.begin(), to.end(), std::byte{9}); };
    cuda_.launch(stream_, predict, {{to, true}});
    steps_.fetch(to.data(), bytes);
    steps_.used();
    catch_up();
    const auto received = steps_.received();
    return {received.begin(), received.end()};
  }

  void drain() { test::run_task(steps_.drain(waiter_)); }
  void finish_kernels() { cuda_.drain(stream_); }
  StepStreams& steps() { return steps_; }
  int in_room() const { return in_room_; }
  Staging& staging() { return staging_; }
  test::LiveState& state() { return state_; }

 private:
  FakeCuda& cuda_;
  std::unique_ptr<Device> device_;
  cudaStream_t stream_;
  std::unique_ptr<DeviceStream> train_;
  std::unique_ptr<DeviceBuffer> result_;
  test::LiveState state_;
  bool owned_ = false;
  int in_room_ = 0;
  EventWaiter waiter_;
  StepStreams steps_;
  Staging staging_;
};

FakeCudaOptions fake(std::uint32_t seed) {
  FakeCudaOptions options;
  options.seed = seed;
  options.longest_delay = std::chrono::microseconds(seed % 3 == 0 ? 0 : 100);
  return options;
}

#ifdef __SANITIZE_THREAD__
constexpr std::uint32_t kSeeds = 20;
constexpr std::uint64_t kEveryCall = 41;
#else
constexpr std::uint32_t kSeeds = 200;
constexpr std::uint64_t kEveryCall = 1;
#endif

TEST(CudaTraining, LossesAndScoresAreRightInEverySchedule) {
  for (std::uint32_t seed = 1; seed <= kSeeds; ++seed) {
    FakeCuda cuda(fake(seed));
    {
      Training training(cuda);
      for (int number = 0; number < kSteps; ++number) {
        training.step(number);
        if (number % 5 == 4) {
          ASSERT_EQ(training.scores(100), std::vector<std::byte>(100, std::byte{9}));
        }
      }
      training.drain();
      for (int number = 0; number < kSteps; ++number) {
        ASSERT_EQ(training.steps().number(static_cast<std::uint32_t>(number)),
                  loss_of(batch_of(number)))
            << "seed " << seed << " step " << number;
      }
      ASSERT_GT(training.in_room(), kSteps / 3) << "seed " << seed;
    }
    ASSERT_THAT(cuda.check(), IsEmpty()) << "seed " << seed;
  }
}

// Whatever call fails: the error says so, numbers that came are right, and nothing is left behind.
TEST(CudaTraining, EveryCallFailingEndsTheRunSoundly) {
  for (const bool sticky : {false, true}) {
    std::uint64_t failed = 0;
    for (std::uint64_t call = 1;; call += kEveryCall) {
      FakeCudaOptions options;
      options.failing_call = call;
      options.sticky = sticky;
      options.error = sticky ? cudaErrorIllegalAddress : cudaErrorMemoryAllocation;
      FakeCuda cuda(options);
      try {
        Training training(cuda);
        try {
          for (int number = 0; number < kSteps; ++number) training.step(number);
          training.drain();
        } catch (const DeviceError& error) {
          ++failed;
          ASSERT_THAT(error.what(), HasSubstr("cudaErrorOfTheFake")) << call;
        }
        for (std::uint32_t number = 0; number < kSteps; ++number) {
          const auto loss = training.steps().number(number);
          const float expected = loss_of(batch_of(static_cast<int>(number)));
          ASSERT_EQ(loss.value_or(expected), expected) << call;
        }
      } catch (const DeviceError& error) {  // before anything ran
        ASSERT_THAT(error.what(), HasSubstr("cudaErrorOfTheFake"));
      }
      ASSERT_THAT(cuda.check(), IsEmpty()) << (sticky ? "lost at " : "failed ") << call;
      if (cuda.call_count() < call) break;
    }
    EXPECT_GT(failed, 30 / kEveryCall);
  }
}

std::map<std::string, std::uint64_t> calls_since(const FakeCuda& cuda,
                                                 std::map<std::string, std::uint64_t> before) {
  auto calls = cuda.calls();
  for (const auto& [name, count] : before) calls[name] -= count;
  std::erase_if(calls, [](const auto& each) { return each.second == 0; });
  return calls;
}

// In steady state nothing is made, pinned or waited for: seven calls, and a look at events.
TEST(CudaTraining, CallsOfAStep) {
  FakeCuda cuda;
  {
    Training training(cuda);
    for (int number = 0; number <= kWarmUp; ++number) training.step(number);
    training.finish_kernels();
    training.catch_up();
    const auto before = cuda.calls();
    training.step(kWarmUp + 1);
    auto calls = calls_since(cuda, before);
    EXPECT_LE(calls["cudaEventQuery"], 6u);
    calls.erase("cudaEventQuery");
    // In: wait for used, copy, event, train waits; used: event; back: copy, event.
    EXPECT_THAT(calls, ElementsAre(Pair("cudaEventRecord", 3), Pair("cudaMemcpyAsync", 2),
                                   Pair("cudaStreamWaitEvent", 2)));
  }
  EXPECT_THAT(cuda.check(), IsEmpty());
}

// Pinned: the file once, and what batches, losses and scores need.
TEST(CudaTraining, PinnedMemoryAgainstState) {
  constexpr std::uint64_t kState = std::uint64_t{16} << 20;
  FakeCuda cuda;
  Training training(cuda, kState);
  for (int number = 0; number < 6; ++number) training.step(number);
  const auto bytes = static_cast<double>(kState + kState / 2);
  EXPECT_GE(static_cast<double>(cuda.pinned()), bytes);
  EXPECT_LE(static_cast<double>(cuda.pinned()), 1.01 * bytes);
}

TEST(CudaTraining, SpansOfTheTrainStreamFollowEachOther) {
  FakeCuda cuda(fake(1));
  Training training(cuda);
  EXPECT_THAT(training.steps().spans(), IsEmpty());
  for (int number = 0; number < 40; ++number) {
    training.step(number);
    if (number % 7 == 0) training.scores(10);
    training.steps().spans();
  }
  training.drain();
  training.finish_kernels();
  const auto spans = training.steps().spans();
  ASSERT_EQ(spans.size(), 46u) << "none was left out";
  for (std::size_t i = 0; i < spans.size(); ++i) {
    EXPECT_EQ(spans[i].number, static_cast<std::int64_t>(i) + 1);
    EXPECT_LE(spans[i].first, spans[i].last);
    if (i > 0) {
      EXPECT_GE(spans[i].first, spans[i - 1].last);
    }
  }
}

TEST(CudaTraining, WhoDoesNotAwaitTheDeviceIsTold) {
  FakeCudaOptions slow;
  slow.longest_delay = std::chrono::milliseconds(5);
  FakeCuda cuda(slow);
  Training training(cuda);
  const std::byte one{1};
  const std::span<const std::byte> part(&one, 1);
  const auto three_batches = [&] {
    for (int i = 0; i < 50; ++i) {
      training.steps().bring({&part, 1});
      training.steps().used();
    }
  };
  EXPECT_THAT(three_batches, ::testing::ThrowsMessage<std::logic_error>(
                                 HasSubstr("before pending() was reached")));
}

}  // namespace
}  // namespace millrace
