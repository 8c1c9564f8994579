// Snapshots of a device's memory, in random schedules: of the state, the modes, the writers that
// come to the gate, the reader of the file, and of what the device does when. Whatever happens, a
// file that comes out holds the state at capture; and a train stream that does not wait at the gate
// is caught.
#include "millrace/runtime/staging/device_snapshot.h"

#include <gmock/gmock.h>

#include <atomic>
#include <future>
#include <mutex>
#include <optional>
#include <thread>

#include "millrace/runtime/device/cpu_device.h"
#include "tests/staging/cpu_scene.h"
#include "tests/support/hold.h"
#include "tests/support/live_state.h"

namespace millrace {
namespace {

using test::File;
using test::LiveState;
using test::Writer;
using ::testing::HasSubstr;

// True when every file of the run held what was captured.
bool files_hold_what_was_captured(std::uint32_t seed, bool deaf) {
  test::CpuScene device(seed);
  test::Scene scene(device, seed, deaf);
  bool right = true;
  for (int save = 0; save < 2; ++save) {
    const auto outcome = scene.save();
    EXPECT_TRUE(outcome.file.has_value()) << seed << ": " << outcome.reason;
    right = right && outcome.file == outcome.expected;
  }
  return right;
}

TEST(DeviceSnapshot, HoldsWhatWasCapturedWhateverTheSchedule) {
  for (std::uint32_t seed = 1; seed <= test::seeds(400, 60); ++seed) {
    ASSERT_TRUE(files_hold_what_was_captured(seed, false)) << "seed " << seed;
  }
}

#ifndef __SANITIZE_THREAD__  // there the same defect is a data race
TEST(DeviceSnapshot, ATrainStreamThatDoesNotWaitIsCaught) {
  unsigned caught = 0;
  for (std::uint32_t seed = 1; seed <= 40; ++seed) {
    caught += files_hold_what_was_captured(seed, true) ? 0 : 1;
  }
  EXPECT_GE(caught, 10u);
}
#endif

struct Held {  // the device stands still until the test lets it go
  explicit Held(CpuStream& stream) {
    stream.launch([opened = open.get_future().share()] { opened.wait(); });
  }
  std::promise<void> open;
};

TEST(DeviceSnapshot, TheHostNeverWaitsAtTheGate) {
  CpuDevice device;
  const auto train = device.make_cpu_stream();
  LiveState state({SliceTable::kSliceBytes * 80, 100});
  for (CapturedStorage& storage : state.captured) storage.on_device = true;
  state.captured[1].mutation = Mutation::kAnyTime;
  const auto expected = state.expected_file();
  Staging staging;
  staging.attach(*train);
  Held held(*train);
  auto snapshot = staging.begin(state.captured, StageMode::kLazy);
  EXPECT_FALSE(snapshot->staged());
  EXPECT_FALSE(staging.gate().open());
  // All of this returns although the device has not even reached the captured step.
  staging.gate().writable(state.storage(0));
  EXPECT_TRUE(staging.gate().clear(state.storage(0)));
  train->launch([&] { LiveState::scribble(state.live); });
  staging.gate().writable_all();
  EXPECT_TRUE(staging.gate().open());
  EXPECT_FALSE(snapshot->staged());
  held.open.set_value();
  EXPECT_EQ(test::file_of(snapshot), expected);
  train->synchronize();
}

TEST(DeviceSnapshot, MuchThatMayChangeAtAnyTimeIsCapturedBeforeTheNextStep) {
  CpuDevice device;
  const auto train = device.make_cpu_stream();
  LiveState state({1000, 100 * SliceTable::kSliceBytes});
  for (CapturedStorage& storage : state.captured) storage.on_device = true;
  state.captured[1].mutation = Mutation::kAnyTime;
  const auto expected = state.expected_file();
  Staging staging;
  staging.attach(*train);
  const auto snapshot = staging.begin(state.captured, StageMode::kLazy);
  train->launch([&] { LiveState::scribble(state.storage(1)); });
  EXPECT_EQ(test::file_of(snapshot), expected);
  train->synchronize();
}

TEST(DeviceSnapshot, TheWatchIsAskedBeforeAWriterPasses) {
  CpuDevice device;
  const auto train = device.make_cpu_stream();
  LiveState state(std::vector<std::uint64_t>(3, 40 * SliceTable::kSliceBytes));
  for (CapturedStorage& storage : state.captured) storage.on_device = true;
  std::mutex mutex;
  std::vector<std::size_t> asked;
  const auto watch = std::make_shared<test::ScriptedWatch>([&](std::size_t i) {
    const std::scoped_lock lock(mutex);
    asked.push_back(i);
    return std::string(i == 2 ? "weight was written past the gate" : "");
  });
  Staging staging;
  staging.attach(*train);
  Held held(*train);
  const auto snapshot = staging.begin(state.captured, StageMode::kLazy, watch);
  staging.gate().writable(state.storage(1));
  EXPECT_THAT(asked, ::testing::ElementsAre(1));
  EXPECT_FALSE(snapshot->discarded());
  staging.gate().writable(state.storage(2));
  EXPECT_TRUE(snapshot->discarded());
  held.open.set_value();
  EXPECT_THROW(test::file_of(snapshot), SnapshotDiscarded);
  snapshot->wait_all();
  EXPECT_EQ(snapshot->discard_reason(), "weight was written past the gate");
}

// One chunk, so the gate opens for all of it, and every version may move from then on.
TEST(DeviceSnapshot, TheWatchIsAskedAboutEverythingBeforeTheGateOpens) {
  CpuDevice device;
  const auto train = device.make_cpu_stream();
  LiveState state({1000, 2000});
  for (CapturedStorage& storage : state.captured) storage.on_device = true;
  const auto expected = state.expected_file();
  std::atomic<bool> bumped{false};
  const auto watch = std::make_shared<test::ScriptedWatch>(
      [&](std::size_t) { return std::string(bumped ? "moved" : ""); });
  Staging staging;
  staging.attach(*train);
  Held held(*train);
  const auto snapshot = staging.begin(state.captured, StageMode::kLazy, watch);
  staging.gate().writable(state.storage(1));
  ASSERT_TRUE(staging.gate().open());
  bumped = true;
  held.open.set_value();
  EXPECT_EQ(test::file_of(snapshot), expected);
}

TEST(DeviceSnapshot, AChunkPutInInPartIsWaitedFor) {
  std::atomic<bool> copied{false};
  CpuDeviceOptions device_options;
  device_options.probe = [&](std::string_view operation) {
    if (operation == "copy_to_host") copied = true;
  };
  CpuDevice device(device_options);
  const auto train = device.make_cpu_stream();
  LiveState state({1000, 2000});
  for (CapturedStorage& storage : state.captured) storage.on_device = true;
  StagingOptions options;
  options.probe = [](std::size_t storage) {
    if (storage == 1) throw std::runtime_error("no more copies");
  };
  Staging staging(options);
  staging.attach(*train);
  Held held(*train);
  const auto snapshot = staging.begin(state.captured, StageMode::kEager);
  EXPECT_TRUE(snapshot->discarded());
  staging.gate().writable_all();
  std::atomic<pid_t> waiter{0};
  bool copied_before = false;
  std::thread waits([&] {
    waiter = gettid();
    snapshot->wait_all();
    copied_before = copied;
  });
  while (waiter == 0) std::this_thread::yield();
  test::wait_until_asleep(waiter);
  held.open.set_value();
  waits.join();
  EXPECT_TRUE(copied_before) << "the first copy was under way";
  EXPECT_EQ(snapshot->discard_reason(), "no more copies");
}

TEST(DeviceSnapshot, AnAbandonedOneWaitsForTheCopiesUnderWay) {
  CpuDevice device;
  const auto train = device.make_cpu_stream();
  LiveState state({SliceTable::kSliceBytes * 100});
  state.captured[0].on_device = true;
  Staging staging;
  staging.attach(*train);
  std::optional<Held> held(std::in_place, *train);
  const auto snapshot = staging.begin(state.captured, StageMode::kEager);
  snapshot->discard("the disk failed");
  EXPECT_FALSE(snapshot->finished()) << "the device still reads the memory";
  held->open.set_value();
  snapshot->abandon("again");
  EXPECT_TRUE(snapshot->finished());
  EXPECT_EQ(snapshot->discard_reason(), "the disk failed");
}

// Every n-th operation of the device failing, for every n: the snapshot has the reason, or the
// whole file; nobody hangs, and the gate lets everybody pass.
TEST(DeviceSnapshot, AFailingDeviceDiscardsIt) {
  for (const std::uint64_t budget : {std::uint64_t{0}, std::uint64_t{4'000'000}}) {
    bool whole = false;
    for (int n = 1; !whole; ++n) {
      CpuDeviceOptions options;
      std::atomic<int> operations{0};
      options.probe = [&](std::string_view operation) {
        if (++operations == n) throw std::runtime_error("lost at " + std::string(operation));
      };
      CpuDevice device(options);
      const auto train = device.make_cpu_stream();
      LiveState state({3'000'000, 100, 3'000'000});
      for (CapturedStorage& storage : state.captured) storage.on_device = true;
      state.captured[1].mutation = Mutation::kAnyTime;
      const auto expected = state.expected_file();
      StagingOptions staging_options;
      staging_options.memory_budget = budget;
      staging_options.block_bytes = 1 << 20;
      Staging staging(staging_options);
      staging.attach(*train);
      auto snapshot = staging.begin(state.captured, StageMode::kLazy);
      snapshot->attach_writer();
      Writer writer(std::exchange(snapshot, nullptr), 1 << 20);
      staging.gate().writable_all();
      const File file = writer.file();
      whole = operations < n;
      if (file) {
        EXPECT_EQ(*file, expected) << n;
      } else {
        EXPECT_THAT(writer.reason(), HasSubstr("lost at")) << n;
      }
      EXPECT_TRUE(file || !whole);
    }
  }
}

TEST(DeviceSnapshot, LaterSavesMakeNoEventsAndPinNothing) {
  CpuDevice device;
  const auto train = device.make_cpu_stream();
  LiveState state({SliceTable::kSliceBytes * 100, 10});
  for (CapturedStorage& storage : state.captured) storage.on_device = true;
  Staging staging;
  staging.attach(*train);
  staging.reserve(state.captured);
  const std::uint64_t pinned = device.pinned();
  EXPECT_GE(pinned, state.live.size());
  EXPECT_EQ(pinned, staging.memory());
  for (int save = 0; save < 3; ++save) {
    EXPECT_EQ(test::file_of(staging.begin(state.captured, StageMode::kLazy)),
              state.expected_file());
    EXPECT_EQ(device.pinned(), pinned);
  }
}

}  // namespace
}  // namespace millrace
