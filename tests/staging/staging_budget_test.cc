// States that exceed the memory budget and stream through a ring of blocks.
#include <gmock/gmock.h>

#include <algorithm>
#include <random>
#include <thread>

#include "millrace/io/local_storage.h"
#include "millrace/io/pickler.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/staging/pth_image.h"
#include "millrace/runtime/staging/staging.h"
#include "tests/support/hold.h"
#include "tests/support/images.h"
#include "tests/support/live_state.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using test::file_of;
using test::LiveState;
using ::testing::HasSubstr;
constexpr std::uint64_t kBlock = 64 << 10;
constexpr StageMode kModes[] = {StageMode::kLazy, StageMode::kEager, StageMode::kBlocking};

// Stages a random state within `budget` while another thread writes the file, and checks it. The
// train thread writes storage after storage behind the gate, and what may change at any time at
// once. Returns whether the state streamed.
bool saves_right(std::uint32_t seed, std::uint64_t budget, StageMode mode) {
  LiveState state = LiveState::random(seed, 20);
  const auto expected = state.expected_file();
  Staging staging({.memory_budget = budget, .block_bytes = kBlock});
  staging.reserve(state.captured);
  const auto snapshot = staging.begin(state.captured, mode);
  snapshot->attach_writer();
  std::vector<std::byte> file;
  std::thread writer([&] { file = file_of(snapshot, seed % 2 == 0 ? kBlock : 10'000); });
  for (std::size_t i = 0; i < state.captured.size(); ++i) {
    if (state.captured[i].mutation == Mutation::kAnyTime) LiveState::scribble(state.storage(i));
  }
  for (std::size_t i = 0; i < state.captured.size(); ++i) {
    if (state.captured[i].mutation == Mutation::kAnyTime) continue;
    staging.gate().writable(state.captured[i].bytes);
    LiveState::scribble(state.storage(i));
  }
  writer.join();
  EXPECT_EQ(file, expected) << "seed " << seed << ", budget " << budget;
  staging.gate().writable_all();
  EXPECT_TRUE(staging.gate().open());
  if (budget > 0) {
    EXPECT_LE(staging.memory(), budget);
  }
  return snapshot->streams();
}

std::uint64_t least_budget(std::span<const CapturedStorage> storages, StagingOptions options) {
  options.memory_budget = 1;
  try {
    Staging(options).reserve(storages);
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.key(), "checkpoint_memory_budget");
    const std::string text = error.what();
    return std::stoull(text.substr(text.find("the least is ") + 13));
  }
  ADD_FAILURE() << "no budget is too small";
  return 0;
}

TEST(StagingBudget, TheFileIsThatOfAnUnlimitedStaging) {
  std::uint32_t streamed = 0, whole = 0;
#ifdef __SANITIZE_THREAD__
  constexpr std::uint32_t kSeeds = 8;  // of a second each
#else
  constexpr std::uint32_t kSeeds = 60;
#endif
  for (std::uint32_t seed = 0; seed < kSeeds; ++seed) {
    const LiveState state = LiveState::random(seed, 20);
    const std::uint64_t least = least_budget(state.captured, {.block_bytes = kBlock});
    for (const std::uint64_t budget :
         {std::uint64_t{0}, least, least + 3 * kBlock / 2, least * 3}) {
      (saves_right(seed, budget, kModes[seed % 3]) ? streamed : whole) += 1;
    }
  }
  EXPECT_GT(streamed, kSeeds);
  EXPECT_GE(whole, kSeeds);
}

TEST(StagingBudget, IsKeptToTheByte) {
  const LiveState state({1 << 20, 1 << 20});
  Staging unlimited;
  unlimited.reserve(state.captured);
  const std::uint64_t whole = unlimited.memory();
  const auto streams = [&](std::uint64_t budget) {
    Staging staging({.memory_budget = budget, .block_bytes = kBlock});
    const auto snapshot = staging.begin(state.captured, StageMode::kLazy);
    EXPECT_LE(staging.memory(), budget);
    return snapshot->streams();
  };
  EXPECT_FALSE(streams(whole));
  EXPECT_TRUE(streams(whole - 1));
}

TEST(StagingBudget, TooSmallNamesTheLeast) {
  LiveState state({1 << 20, 20'000, 1 << 20});
  state.captured[1].mutation = Mutation::kAnyTime;
  for (const std::size_t slots : {1U, 2U}) {
    StagingOptions options{.slots = slots, .block_bytes = kBlock};
    options.memory_budget = least_budget(state.captured, options);
    EXPECT_EQ(options.memory_budget, slots * (2 * kBlock + 20'480));
    Staging exact(options);
    exact.reserve(state.captured);
    EXPECT_EQ(exact.memory(), options.memory_budget);
    --options.memory_budget;
    EXPECT_THROW(Staging(options).reserve(state.captured), ConfigError);
    EXPECT_THROW(Staging(options).begin(state.captured, StageMode::kLazy), ConfigError);
  }
}

TEST(StagingBudget, IsSharedByTwoArenas) {
  const LiveState state({1 << 20});
  StagingOptions options{.slots = 2, .memory_budget = 10 * kBlock, .block_bytes = kBlock};
  Staging staging(options);
  staging.reserve(state.captured);
  EXPECT_EQ(staging.memory(), options.memory_budget);
}

TEST(StagingBudget, RoomForWhatTheOptimizerWillAddIsCheckedBeforeTraining) {
  const LiveState state({1 << 20});
  Staging roomy;
  roomy.reserve(state.captured, 2 << 20);
  EXPECT_GE(roomy.memory(), std::uint64_t{3} << 20);
  Staging tight({.memory_budget = 2 << 20, .block_bytes = kBlock});
  tight.reserve(state.captured, 2 << 20);
  EXPECT_LE(tight.memory(), std::uint64_t{2} << 20);
  Staging refused({.memory_budget = (1 << 20) + (1 << 18), .block_bytes = 1 << 20});
  EXPECT_THROW(refused.reserve(state.captured, 2 << 20), ConfigError);
}

// A state that grows, shrinks and grows again in one staging.
TEST(StagingBudget, StatesOfDifferentSizesTakeTurns) {
  Staging staging({.memory_budget = 8 * kBlock, .block_bytes = kBlock});
  for (const std::uint64_t size : {200'000UL, 2'000'000UL, 100'000UL, 3'000'000UL}) {
    LiveState state({size, 30'000});
    state.captured[1].mutation = Mutation::kAnyTime;
    auto snapshot = staging.begin(state.captured, StageMode::kLazy);
    EXPECT_EQ(snapshot->streams(), size > 500'000);
    LiveState::scribble(state.storage(1));
    EXPECT_EQ(file_of(snapshot), state.expected_file());
    EXPECT_LE(staging.memory(), 8 * kBlock);
    staging.gate().writable_all();
  }
}

// Many times the ring, through the real writer.
TEST(StagingBudget, LocalStorageWritesItBlockByBlock) {
  test::TempDir dir;
  for (const std::uint64_t write_block : {kBlock, kBlock / 4, 4 * kBlock}) {
    LocalStorage storage(dir.path(), std::make_shared<PosixFileOps>(),
                         {.block_bytes = write_block, .direct_from = 1});
    storage.prepare();
    const LiveState state({5'000'000, 77, 300'000});
    Staging staging({.memory_budget = 3 * kBlock, .block_bytes = kBlock});
    const auto snapshot = staging.begin(state.captured, StageMode::kLazy);
    EXPECT_TRUE(snapshot->streams());
    PthImage image(snapshot, pickle::pickle(pickle::Value::list({"state"})),
                   {{"millrace/state", test::pattern(77, 9)}});
    storage.commit("file.pth", image);
    EXPECT_EQ(test::read_all(storage, "file.pth"), state.expected_file());
  }
}

// The train thread is at the gate and the ring is full when the writer fails.
TEST(StagingBudget, AWriterThatFailsOpensTheGate) {
  LiveState state({20 * kBlock});
  Staging staging({.memory_budget = 2 * kBlock, .block_bytes = kBlock});
  const auto snapshot = staging.begin(state.captured, StageMode::kLazy);
  snapshot->attach_writer();
  const pid_t train = gettid();
  std::thread writer([&] {
    PthImage image(snapshot, {}, {});
    image.wait(0, kBlock);
    image.wait(kBlock, 2 * kBlock);
    test::wait_until_asleep(train);
    snapshot->abandon("No space left on device");
    EXPECT_THROW(image.wait(2 * kBlock, 3 * kBlock), SnapshotDiscarded);
  });
  staging.gate().writable_all();
  EXPECT_TRUE(staging.gate().open());
  EXPECT_GT(snapshot->gate_time().count(), 0) << "the time at the gate counts";
  LiveState::scribble(state.live);
  writer.join();
}

// A writer that was promised and starts late is waited for; one that was not is not.
TEST(StagingBudget, AWriterThatHasNotStartedDoesNotBlockTheGateForEver) {
  LiveState state({20 * kBlock});
  Staging staging({.memory_budget = 2 * kBlock, .block_bytes = kBlock});
  {
    const auto snapshot = staging.begin(state.captured, StageMode::kLazy);
    staging.gate().writable_all();
    EXPECT_TRUE(staging.gate().open());
    EXPECT_THAT(snapshot->discard_reason(), HasSubstr("memory budget"));
    EXPECT_THROW(file_of(snapshot), SnapshotDiscarded);
  }
  const auto snapshot = staging.begin(state.captured, StageMode::kLazy);
  snapshot->attach_writer();
  const pid_t train = gettid();
  std::vector<std::byte> file;
  std::thread writer([&] {
    test::wait_until_asleep(train);
    file = file_of(snapshot);
  });
  staging.gate().writable_all();
  LiveState::scribble(state.live);
  writer.join();
  EXPECT_EQ(file, state.expected_file());
}

TEST(StagingBudget, ADroppedSnapshotFreesTheCopier) {
  const LiveState state({20 * kBlock});
  Staging staging({.memory_budget = 2 * kBlock, .block_bytes = kBlock});
  staging.begin(state.captured, StageMode::kLazy).reset();
  const auto snapshot = staging.begin(state.captured, StageMode::kLazy);
  EXPECT_EQ(file_of(snapshot), state.expected_file());
  staging.gate().writable_all();
}

// The watch is asked about what streams, not about copies made at capture.
TEST(StagingBudget, MovedTensorsAreFoundWhileStreaming) {
  LiveState state({20 * kBlock, 100, 20 * kBlock});
  state.captured[1].mutation = Mutation::kAnyTime;
  for (const std::size_t bad : {0U, 1U, 2U}) {
    Staging staging({.memory_budget = 3 * kBlock, .block_bytes = kBlock});
    const auto snapshot = staging.begin(state.captured, StageMode::kLazy,
                                        std::make_shared<test::ScriptedWatch>([&](std::size_t i) {
                                          return i == bad ? "moved" : std::string();
                                        }));
    if (bad == 1) {
      EXPECT_EQ(file_of(snapshot), state.expected_file());
    } else {
      EXPECT_THROW(file_of(snapshot), SnapshotDiscarded);
    }
    staging.gate().writable_all();
  }
}

}  // namespace
}  // namespace millrace
