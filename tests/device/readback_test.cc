#include "millrace/runtime/device/readback.h"

#include <gmock/gmock.h>

#include <cstring>
#include <future>
#include <utility>
#include <vector>

#include "millrace/runtime/device/cpu_device.h"
#include "millrace/runtime/device/device_error.h"
#include "millrace/runtime/device/event_waiter.h"
#include "tests/support/alloc_counter.h"
#include "tests/support/idle_device.h"
#include "tests/support/run_task.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::ThrowsMessage;

// A Readback on the twin, of one number that each step overwrites.
struct Scene {
  explicit Scene(ReadbackOptions options = {}, CpuDeviceOptions device_options = {})
      : device(std::move(device_options)), train(device.make_cpu_stream()) {
    readback = std::make_unique<Readback>(*train, options);
  }
  void block_train() {
    train->launch([opened = go_on.get_future().share()] { opened.wait(); });
  }
  bool step(std::int64_t iter) {
    train->launch([this, iter] { loss = 0.5 * static_cast<double>(iter); });
    return readback->push(iter, reinterpret_cast<const std::byte*>(&loss), sizeof(loss));
  }
  std::size_t take_ready() { return readback->take_ready(take); }
  void drain() { test::run_task(readback->drain(waiter, take)); }

  CpuDevice device;
  EventWaiter waiter;
  std::promise<void> go_on;
  double loss = -1;  // the device's
  std::unique_ptr<CpuStream> train;
  std::unique_ptr<Readback> readback;
  std::vector<std::pair<std::int64_t, double>> taken;
  Readback::Take take = [this](std::int64_t iter, std::span<const std::byte> result) {
    ASSERT_EQ(result.size(), sizeof(double));
    double value = 0;
    std::memcpy(&value, result.data(), sizeof(value));
    taken.emplace_back(iter, value);
  };
};

TEST(Readback, HandsOutWhatHasArrivedInOrderAndWithoutBlocking) {
  Scene scene;
  EXPECT_TRUE(scene.step(7));
  scene.train->synchronize();
  scene.block_train();
  EXPECT_TRUE(scene.step(8));
  EXPECT_TRUE(scene.step(9));
  EXPECT_EQ(scene.take_ready(), 1u);
  EXPECT_EQ(scene.take_ready(), 0u) << "the stream is blocked";
  EXPECT_THAT(scene.taken, ElementsAre(Pair(7, 3.5)));
  EXPECT_EQ(scene.readback->size(), 2u);
  scene.go_on.set_value();
  scene.train->synchronize();
  EXPECT_EQ(scene.take_ready(), 2u);
  EXPECT_THAT(scene.taken, ElementsAre(Pair(7, 3.5), Pair(8, 4.0), Pair(9, 4.5)));
}

TEST(Readback, DrainSuspendsForTheRest) {
  Scene scene;
  scene.block_train();
  for (int iter = 0; iter < 3; ++iter) EXPECT_TRUE(scene.step(iter));
  std::thread other([&] { scene.go_on.set_value(); });
  scene.drain();
  other.join();
  EXPECT_THAT(scene.taken, ElementsAre(Pair(0, 0.0), Pair(1, 0.5), Pair(2, 1.0)));
  EXPECT_EQ(scene.readback->size(), 0u);
  scene.drain();
  test::run_task(scene.readback->wait_oldest(scene.waiter));
}

TEST(Readback, AFullRingRefusesUntilTheOldestIsTaken) {
  Scene scene({.capacity = 2, .entry_bytes = 8});
  scene.block_train();
  EXPECT_TRUE(scene.step(1));
  EXPECT_TRUE(scene.step(2));
  EXPECT_FALSE(scene.step(3));
  EXPECT_EQ(scene.take_ready(), 0u);
  EXPECT_FALSE(scene.step(3));
  EXPECT_EQ(scene.readback->size(), 2u);
  std::thread other([&] { scene.go_on.set_value(); });
  test::run_task(scene.readback->wait_oldest(scene.waiter));
  other.join();
  EXPECT_GE(scene.take_ready(), 1u);
  EXPECT_TRUE(scene.step(4));
  scene.drain();
  EXPECT_THAT(scene.taken, ElementsAre(Pair(1, 0.5), Pair(2, 1.0), Pair(4, 2.0)));
}

TEST(Readback, AResultThatIsTooLargeIsADefect) {
  Scene scene({.capacity = 2, .entry_bytes = 4});
  EXPECT_THAT([&] { scene.step(1); },
              ThrowsMessage<std::logic_error>(HasSubstr("8 bytes, an entry holds 4")));
  EXPECT_EQ(scene.readback->size(), 0u);
}

TEST(Readback, WhatTakeThrowsPassesThroughAndTheEntryIsTaken) {
  Scene scene;
  EXPECT_TRUE(scene.step(1));
  EXPECT_TRUE(scene.step(2));
  scene.train->synchronize();
  const Readback::Take fail = [](std::int64_t, std::span<const std::byte>) {
    throw DeviceError("another", "gpu", 1, "device", true);
  };
  EXPECT_THAT([&] { scene.readback->take_ready(fail); },
              ThrowsMessage<DeviceError>("another on gpu: device (error 1)"));
  EXPECT_EQ(scene.take_ready(), 1u);
  EXPECT_THAT(scene.taken, ElementsAre(Pair(2, 1.0)));
}

// The step of iteration 3 fails, behind a barrier, so that all of it is in the stream by then.
CpuDeviceOptions failing_in_third_step() {
  CpuDeviceOptions options;
  options.probe = [launches = 0](std::string_view operation) mutable {
    if (operation == "launch" && ++launches == 4) throw std::runtime_error("an illegal address");
  };
  return options;
}

TEST(Readback, AFailureIsThrownWithItsIteration) {
  Scene scene({}, failing_in_third_step());
  scene.block_train();
  for (int iter = 1; iter <= 4; ++iter) EXPECT_TRUE(scene.step(iter));
  scene.go_on.set_value();
  EXPECT_THROW(scene.train->synchronize(), DeviceError);
  for (int again = 0; again < 2; ++again) {
    EXPECT_THAT([&] { scene.take_ready(); },
                ThrowsMessage<DeviceError>(
                    "result of iteration 3: query on cpu: an illegal address (error 1)"));
  }
  EXPECT_THAT(scene.taken, ElementsAre(Pair(1, 0.5), Pair(2, 1.0)));
  EXPECT_THAT([&] { scene.drain(); },
              ThrowsMessage<DeviceError>(HasSubstr("result of iteration 3: ")));
  EXPECT_EQ(scene.readback->size(), 0u);
  EXPECT_EQ(scene.taken.size(), 2u) << "lost results are dropped";
}

TEST(Readback, DrainHandsOutWhatArrivedBeforeTheFailure) {
  Scene scene({}, failing_in_third_step());
  scene.block_train();
  for (int iter = 1; iter <= 4; ++iter) EXPECT_TRUE(scene.step(iter));
  scene.go_on.set_value();
  EXPECT_THROW(scene.drain(), DeviceError);
  EXPECT_THAT(scene.taken, ElementsAre(Pair(1, 0.5), Pair(2, 1.0)));
}

TEST(Readback, SteadyStateAllocatesNothing) {
  test::IdleDevice device;
  const auto train = device.make_stream(StreamPriority::kNormal);
  Readback readback(*train, {.capacity = 4, .entry_bytes = 64});
  const std::byte loss{1};
  std::int64_t taken = 0;
  const Readback::Take take = [&](std::int64_t, std::span<const std::byte>) { ++taken; };
  const test::AllocationCount count;
  for (int iter = 0; iter < 100; ++iter) {
    EXPECT_TRUE(readback.push(iter, &loss, 1));
    if (iter % 3 == 0) readback.take_ready(take);
  }
  readback.take_ready(take);
  EXPECT_EQ(count.so_far(), 0u);
  EXPECT_EQ(taken, 100);
}

}  // namespace
}  // namespace millrace
