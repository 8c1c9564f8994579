#include "millrace/runtime/device/copy_in.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <future>
#include <thread>
#include <vector>

#include "millrace/runtime/device/cpu_device.h"
#include "millrace/runtime/device/device_error.h"
#include "millrace/runtime/device/event_waiter.h"
#include "tests/support/alloc_counter.h"
#include "tests/support/idle_device.h"
#include "tests/support/run_task.h"

namespace millrace {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr std::array<std::size_t, 1> kOnePart = {1000};
const std::stop_token kNeverStopped;

// A CopyIn on the twin, and one destination for each slot.
struct Scene {
  explicit Scene(CpuDeviceOptions options = {}, std::size_t slots = 2)
      : device(std::move(options)),
        train(device.make_cpu_stream()),
        copy_in(std::make_unique<CopyIn>(*train, slots)),
        destinations(slots, std::vector<std::byte>(8192)) {}
  ~Scene() {
    if (copy_in) drain();
    copy_in.reset();
    train.reset();
  }
  void drain() { test::run_task(copy_in->drain(waiter)); }
  CopyIn::Slot& fill(std::byte value) {
    CopyIn::Slot* const slot = copy_in->next(kOnePart, kNeverStopped);
    std::ranges::fill(slot->part(0), value);
    return *slot;
  }
  std::vector<std::byte>& destination(const CopyIn::Slot& slot) {
    return destinations[slot.index()];
  }
  void put_in(CopyIn::Slot& slot) { copy_in->put_in(slot, destination(slot).data()); }
  void block_train() {
    train->launch([opened = go_on.get_future().share()] { opened.wait(); });
  }

  CpuDevice device;
  EventWaiter waiter;
  std::promise<void> go_on;
  std::unique_ptr<CpuStream> train;
  std::unique_ptr<CopyIn> copy_in;
  std::vector<std::vector<std::byte>> destinations;
};

TEST(CopyIn, PartsLieAtTheSameAlignedOffsetsHereAndThere) {
  Scene scene;
  const std::array<std::size_t, 4> parts = {1000, 0, 256, 3};
  EXPECT_EQ(CopyIn::bytes_for(parts), 1024u + 256u + 256u);
  CopyIn::Slot& slot = *scene.copy_in->next(parts, kNeverStopped);
  ASSERT_EQ(slot.parts(), 4u);
  EXPECT_EQ(slot.bytes().size(), CopyIn::bytes_for(parts));
  std::array<std::size_t, 4> offsets{};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(slot.part(i).size(), parts[i]);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(slot.part(i).data()) % CopyIn::kAlignment, 0u);
    offsets[i] = slot.offset(i);
    std::ranges::fill(slot.part(i), std::byte(i + 1));
  }
  scene.put_in(slot);
  bool arrived = false;
  scene.train->launch([&, there = scene.destination(slot).data()] {
    arrived = true;
    for (std::size_t i = 0; i < 4; ++i) {
      const std::span part(there + offsets[i], parts[i]);
      arrived = arrived && std::ranges::count(part, std::byte(i + 1)) == std::ssize(part);
    }
  });
  scene.copy_in->used(slot);
  scene.train->synchronize();
  EXPECT_TRUE(arrived);
}

TEST(CopyIn, TheLoaderWaitsForTheTrainThreadAndIsStopped) {
  Scene scene;
  CopyIn::Slot& first = scene.fill(std::byte{1});
  CopyIn::Slot& second = scene.fill(std::byte{2});
  EXPECT_NE(first.index(), second.index());
  EXPECT_EQ(scene.copy_in->try_next(kOnePart), nullptr);
  std::promise<CopyIn::Slot*> got;
  std::jthread loader([&](const std::stop_token& stop) {
    got.set_value(scene.copy_in->next(kOnePart, stop));
    EXPECT_EQ(scene.copy_in->next(kOnePart, stop), nullptr);
  });
  scene.put_in(second);
  EXPECT_EQ(got.get_future().get(), &second);
  loader.request_stop();
  loader.join();
  scene.copy_in->give_back(first);
  EXPECT_EQ(scene.copy_in->try_next(kOnePart), &first) << "given back, it is not used up";
}

TEST(CopyIn, ADestinationIsWrittenOnlyWhenTheTrainStreamIsThroughWithIt) {
  Scene scene({}, 1);
  CopyIn::Slot& slot = scene.fill(std::byte{1});
  scene.put_in(slot);
  scene.block_train();
  std::vector<std::byte> seen;
  scene.train->launch([&] {
    const auto& there = scene.destinations[0];
    seen.assign(there.begin(), there.begin() + 1000);
  });
  scene.copy_in->used(slot);
  EXPECT_EQ(&scene.fill(std::byte{2}), &slot) << "the buffer is free once it was copied";
  scene.put_in(slot);
  EXPECT_EQ(scene.copy_in->try_next(kOnePart), nullptr) << "its copy waits for the step";
  scene.go_on.set_value();
  EXPECT_EQ(scene.copy_in->next(kOnePart, kNeverStopped), &slot);
  EXPECT_THAT(seen, Each(std::byte{1}));
  EXPECT_EQ(scene.destinations[0][999], std::byte{2});
}

TEST(CopyIn, CallsOutOfOrderAreDefects) {
  Scene scene({}, 1);
  CopyIn::Slot& slot = scene.fill(std::byte{1});
  scene.put_in(slot);
  EXPECT_THAT([&] { scene.put_in(scene.fill(std::byte{2})); },
              ThrowsMessage<std::logic_error>(HasSubstr("used() was not called")));
  scene.copy_in->used(slot);
  scene.put_in(slot);
  EXPECT_THAT([&] { scene.copy_in->give_back(slot); },
              ThrowsMessage<std::logic_error>(HasSubstr("has not handed out")));
}

TEST(CopyIn, ALargerBatchPinsAnewAndASmallerOneDoesNot) {
  Scene scene({}, 1);
  scene.copy_in->reserve(4096);
  EXPECT_EQ(scene.copy_in->pins(), 1u);
  // A page holds the first two, two pages the others.
  const std::vector<std::pair<std::size_t, std::uint64_t>> batches = {
      {1, 1}, {4096, 1}, {4097, 2}, {8192, 2}, {300, 2}};
  for (const auto& [bytes, pins] : batches) {
    const std::array<std::size_t, 1> parts = {bytes};
    CopyIn::Slot& slot = *scene.copy_in->next(parts, kNeverStopped);
    EXPECT_EQ(scene.copy_in->pins(), pins) << bytes;
    std::ranges::fill(slot.part(0), std::byte(bytes + 1));
    scene.put_in(slot);
    scene.copy_in->used(slot);
    scene.train->synchronize();
    EXPECT_EQ(scene.destinations[0][bytes - 1], std::byte(bytes + 1));
  }
  EXPECT_EQ(scene.device.pinned(), 8192u);
  scene.drain();
  scene.copy_in.reset();
  EXPECT_EQ(scene.device.pinned(), 0u);
}

TEST(CopyIn, MemoryIsUnpinnedBeforeMoreIsPinnedInItsPlace) {
  test::IdleDevice device;
  const auto train = device.make_stream(StreamPriority::kNormal);
  CopyIn copy_in(*train, 1);
  for (const std::size_t bytes : {100u, 10'000u, 100'000u}) copy_in.reserve(bytes);
  EXPECT_EQ(copy_in.pins(), 3u);
  EXPECT_EQ(device.most_pins(), 1);
}

TEST(CopyIn, ALostDeviceReachesTheLoaderAndDrains) {
  std::promise<void> put_in;
  CpuDeviceOptions options;
  options.probe = [all = put_in.get_future().share()](std::string_view operation) {
    if (operation != "copy_to_device") return;
    all.wait();
    throw std::runtime_error("fell off the bus");
  };
  Scene scene(std::move(options), 1);
  scene.put_in(scene.fill(std::byte{1}));
  put_in.set_value();
  for (int again = 0; again < 2; ++again) {
    EXPECT_THAT([&] { scene.copy_in->next(kOnePart, kNeverStopped); },
                ThrowsMessage<DeviceError>(HasSubstr("fell off the bus")));
  }
  EXPECT_THROW(scene.copy_in->try_next(kOnePart), DeviceError);
  EXPECT_THROW(scene.drain(), DeviceError);
  scene.drain();  // nothing is under way any more
}

// Nobody drained: the pinned memory stays until the copy has read it, on a device that is lost as
// well.
TEST(CopyIn, GoneWithACopyUnderWayItWaitsForIt) {
  for (const bool lost : {false, true}) {
    CpuDeviceOptions options;
    options.longest_delay = std::chrono::milliseconds(20);
    options.seed = 3;
    std::promise<void> queued;  // lost only then: put_in() would throw it
    options.probe = [lost, all = queued.get_future().share()](std::string_view operation) {
      if (!lost || operation != "copy_to_device") return;
      all.wait();
      throw std::runtime_error("fell off the bus");
    };
    CpuDevice device(options);
    std::vector<std::byte> destination(1024);
    const auto train = device.make_stream(StreamPriority::kNormal);
    {
      CopyIn copy_in(*train);
      CopyIn::Slot& slot = *copy_in.next(kOnePart, kNeverStopped);
      std::fill(slot.part(0).begin(), slot.part(0).end(), std::byte{7});
      copy_in.put_in(slot, destination.data());
      queued.set_value();
    }
    EXPECT_EQ(destination.front() == std::byte{7}, !lost);
  }
}

TEST(CopyIn, SteadyStateAllocatesAndPinsNothing) {
  test::IdleDevice device;
  const auto train = device.make_stream(StreamPriority::kNormal);
  EventWaiter waiter;
  CopyIn copy_in(*train);
  const std::array<std::size_t, 2> parts = {10'000, 64};
  copy_in.reserve(CopyIn::bytes_for(parts));
  std::vector<std::byte> destination(CopyIn::bytes_for(parts));
  std::uint64_t allocations = 1;
  for (int round = 0; round < 2; ++round) {
    const test::AllocationCount count;
    for (int batch = 0; batch < 100; ++batch) {
      CopyIn::Slot& slot = *copy_in.next(parts, kNeverStopped);
      copy_in.put_in(slot, destination.data());
      copy_in.used(slot);
    }
    allocations = count.so_far();
  }
  EXPECT_EQ(allocations, 0u);
  EXPECT_EQ(copy_in.pins(), 2u);
  test::run_task(copy_in.drain(waiter));
}

}  // namespace
}  // namespace millrace
