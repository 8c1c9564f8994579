// Small storages of a device, packed: the files, the memory, and what else a save still guarantees.
#include <gmock/gmock.h>

#include <atomic>
#include <future>

#include "millrace/runtime/device/cpu_device.h"
#include "millrace/runtime/staging/device_snapshot.h"
#include "tests/staging/cpu_scene.h"
#include "tests/staging/pack_scene.h"

namespace millrace {
namespace {

using test::Defect;
using test::LiveState;

TEST(DevicePack, ThreeThousandSmallStoragesAreWhatABlockingSaveOnTheHostWrites) {
  for (std::uint32_t seed = 1; seed <= test::seeds(40, 6); ++seed) {
    test::CpuScene device(seed);
    test::PackScene scene(device, {.seed = seed});
    ASSERT_EQ(test::wrong_files(scene), 0) << "seed " << seed;
  }
}

TEST(DevicePack, MemoryUsedAgainTooEarlyMakesWrongFiles) {
  test::CpuScene device(1);
  {
    test::HeldCopies scene(device, Defect::kNone);
    auto snapshot = scene.begin();
    scene.open();
    EXPECT_TRUE(scene.right(snapshot));
    snapshot.reset();
    EXPECT_TRUE(scene.right(scene.begin()));
  }
  {
    test::HeldCopies scene(device, Defect::kPackDoesNotWait);
    const auto snapshot = scene.begin();
    scene.open();
    EXPECT_FALSE(scene.right(snapshot));
  }
  test::HeldCopies scene(device, Defect::kHostDoesNotWait);
  EXPECT_FALSE(scene.right(scene.begin()));
  scene.open();
}

// What the device was asked to do, by name.
class Operations {
 public:
  CpuDeviceOptions options() {
    CpuDeviceOptions made;
    made.probe = [this](std::string_view operation) {
      packs += operation == "pack" ? 1 : 0;
      copies += operation == "copy_to_host" ? 1 : 0;
      uploads += operation == "copy_to_device" ? 1 : 0;
    };
    return made;
  }
  std::atomic<int> packs{0}, copies{0}, uploads{0};
};

LiveState small_state(std::size_t storages, std::uint64_t size = 100) {
  LiveState state(std::vector<std::uint64_t>(storages, size));
  for (CapturedStorage& storage : state.captured) storage.on_device = true;
  return state;
}

void expect_saved(Staging& staging, const LiveState& state) {
  EXPECT_EQ(test::file_of(staging.begin(state.captured, StageMode::kLazy)), state.expected_file());
}

TEST(DevicePack, TheTableIsUploadedOnceAndNothingIsMadeAfterReserve) {
  Operations seen;
  CpuDevice device(seen.options());
  const auto train = device.make_cpu_stream();
  const LiveState state = small_state(1000), other = small_state(900);
  Staging staging;
  staging.attach(*train);
  staging.reserve(state.captured);
  const std::uint64_t pinned = device.pinned(), allocated = device.allocated();
  EXPECT_EQ(pinned, staging.memory()) << "the packed storages count";
  EXPECT_EQ(allocated, 1000 * (pack_padded(100) + sizeof(PackPiece)));
  for (int save = 1; save <= 3; ++save) {
    expect_saved(staging, state);
    EXPECT_EQ(seen.packs, save);
    EXPECT_EQ(seen.copies, save);
    EXPECT_EQ(seen.uploads, 1);
  }
  expect_saved(staging, other);
  EXPECT_EQ(seen.packs, 4);
  EXPECT_EQ(seen.uploads, 2) << "another plan";
  EXPECT_EQ(device.pinned(), pinned);
  EXPECT_EQ(device.allocated(), allocated);
}

TEST(DevicePack, ThereIsRoomForTheStatesOfAnOptimizer) {
  Operations seen;
  CpuDevice device(seen.options());
  const auto train = device.make_cpu_stream();
  const LiveState before = small_state(100), after = small_state(400);
  Staging staging;
  staging.attach(*train);
  staging.reserve(before.captured, 300 * 100);
  const std::uint64_t pinned = device.pinned(), allocated = device.allocated();
  expect_saved(staging, before);
  expect_saved(staging, after);
  EXPECT_EQ(seen.copies, 2);
  EXPECT_EQ(device.pinned(), pinned);
  EXPECT_EQ(device.allocated(), allocated);
}

TEST(DevicePack, ReservedAnewItUploadsTheTableAnew) {
  Operations seen;
  CpuDevice device(seen.options());
  const auto train = device.make_cpu_stream();
  const LiveState state = small_state(100);
  Staging staging;
  staging.attach(*train);
  for (const std::uint64_t to_come : {0, 300 * 100}) {
    staging.reserve(state.captured, to_come);
    expect_saved(staging, state);
  }
  EXPECT_EQ(seen.packs, 2);
  EXPECT_EQ(seen.uploads, 2);
}

TEST(DevicePack, WithoutReserveOrRoomStoragesAreCopiedOneByOne) {
  Operations seen;
  CpuDevice device(seen.options());
  const auto train = device.make_cpu_stream();
  const LiveState state = small_state(50), larger = small_state(80);
  Staging staging;
  staging.attach(*train);
  expect_saved(staging, state);
  EXPECT_EQ(seen.packs, 0);
  EXPECT_EQ(seen.copies, 50);
  staging.reserve(state.captured);
  expect_saved(staging, larger);
  EXPECT_EQ(seen.packs, 1);
  EXPECT_EQ(seen.copies, 50 + 1 + 30) << "there is room for 50";
}

TEST(DevicePack, MuchOfItTakesSeveralTurnsInTheDeviceBuffer) {
  Operations seen;
  CpuDevice device(seen.options());
  const auto train = device.make_cpu_stream();
  const LiveState state = small_state(300, 60'000);
  Staging staging;
  staging.attach(*train);
  staging.reserve(state.captured);
  const std::uint64_t table = 300 * pack_pieces(60'000) * sizeof(PackPiece);
  EXPECT_EQ(device.allocated(), DevicePlan::kChunkBytes + table);
  expect_saved(staging, state);
  EXPECT_EQ(seen.packs, 3);
}

// Packing takes only what the budget leaves; it never makes a state stream.
TEST(DevicePack, TheBudgetHoldsTheFileFirst) {
  const LiveState state = small_state(200);
  std::uint64_t whole = 0, packed = 0;
  {
    CpuDevice device;
    const auto train = device.make_cpu_stream();
    Staging staging;
    staging.attach(*train);
    staging.reserve(state.captured);
    packed = staging.memory();
    whole = packed - pack_room(state.captured, 1, DevicePlan::kChunkBytes).host_bytes();
  }
  ASSERT_LT(whole, packed);
  for (const std::uint64_t budget : {packed, packed - 1, whole, whole - 1}) {
    Operations seen;
    CpuDevice device(seen.options());
    const auto train = device.make_cpu_stream();
    StagingOptions options;
    options.memory_budget = budget;
    options.block_bytes = 4096;
    Staging staging(options);
    staging.attach(*train);
    staging.reserve(state.captured);
    EXPECT_EQ(staging.streams(), budget < whole);
    EXPECT_LE(staging.memory(), budget);
    expect_saved(staging, state);
    EXPECT_EQ(seen.packs, budget == packed ? 1 : 0) << budget;
    EXPECT_EQ(device.allocated() > 0, budget == packed);
  }
}

// The state grows, and what was packed makes way.
TEST(DevicePack, AFileThatNeedsTheBudgetTakesItFromThePackedStorages) {
  Operations seen;
  CpuDevice device(seen.options());
  const auto train = device.make_cpu_stream();
  const LiveState state = small_state(200), larger = small_state(220, 300);
  StagingOptions options;
  {
    Staging staging;
    staging.attach(*train);
    staging.reserve(larger.captured);
    options.memory_budget =
        staging.memory() - pack_room(larger.captured, 1, DevicePlan::kChunkBytes).host_bytes();
  }
  Staging staging(options);
  staging.attach(*train);
  staging.reserve(state.captured);
  expect_saved(staging, state);
  EXPECT_EQ(seen.packs, 1);
  expect_saved(staging, larger);
  EXPECT_EQ(seen.packs, 1);
  EXPECT_LE(staging.memory(), options.memory_budget);
  EXPECT_FALSE(staging.streams());
}

// The first chunk behind the gate is the pack: who writes a small storage waits for that alone.
TEST(DevicePack, TheWatchIsAskedAndTheHostNeverWaitsAtTheGate) {
  CpuDevice device;
  const auto train = device.make_cpu_stream();
  LiveState state({SliceTable::kSliceBytes * 40, 100, 200, 300, 400});
  for (CapturedStorage& storage : state.captured) storage.on_device = true;
  const auto expected = state.expected_file();
  Staging staging;
  staging.attach(*train);
  staging.reserve(state.captured);
  std::promise<void> open;
  train->launch([opened = open.get_future().share()] { opened.wait(); });
  std::vector<std::size_t> asked;
  const auto watch = std::make_shared<test::ScriptedWatch>([&](std::size_t i) {
    asked.push_back(i);  // before the device goes on: by the train thread alone
    return std::string();
  });
  auto snapshot = staging.begin(state.captured, StageMode::kLazy, watch);
  staging.gate().writable(state.storage(2));
  EXPECT_TRUE(staging.gate().clear(state.storage(4))) << "it came with the same pack";
  EXPECT_FALSE(staging.gate().clear(state.storage(0)));
  EXPECT_THAT(asked, ::testing::ElementsAre(2));
  staging.gate().writable_all();
  EXPECT_EQ(asked.size(), 5u);
  train->launch([&] { LiveState::scribble(state.live); });
  open.set_value();
  EXPECT_EQ(test::file_of(snapshot), expected);
  train->synchronize();
}

}  // namespace
}  // namespace millrace
