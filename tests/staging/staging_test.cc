#include "millrace/runtime/staging/staging.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <latch>
#include <set>
#include <thread>
#include <utility>

#include "millrace/runtime/async/error.h"
#include "tests/support/hold.h"
#include "tests/support/live_state.h"
#include "tests/support/live_threads.h"

namespace millrace {
namespace {

using test::file_of;
using test::LiveState;
using ::testing::HasSubstr;
constexpr std::size_t kLarge = 3 * Staging::kSmall;
constexpr StageMode kModes[] = {StageMode::kLazy, StageMode::kEager, StageMode::kBlocking};

TEST(Staging, EveryModeGivesTheStateAtCapture) {
  Staging staging;
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    for (const StageMode mode : kModes) {
      LiveState state = LiveState::random(seed);
      const auto snapshot = staging.begin(state.captured, mode);
      if (mode != StageMode::kLazy) {
        EXPECT_TRUE(snapshot->staged()) << "copied before begin() returns";
        EXPECT_TRUE(staging.gate().open());
      }
      staging.gate().writable_all();
      LiveState::scribble(state.live);
      EXPECT_EQ(file_of(snapshot), state.expected_file())
          << "seed " << seed << ", " << stage_mode_name(mode);
    }
  }
}

TEST(Staging, LazyCopiesWhatMayChangeAtAnyTimeAndWhatIsSmallBeforeItReturns) {
  LiveState state({kLarge, kLarge, Staging::kSmall});
  state.captured[1].mutation = Mutation::kAnyTime;
  test::Hold hold;
  const auto train = std::this_thread::get_id();
  Staging staging({.probe = [&](std::size_t) {
    if (std::this_thread::get_id() != train) hold.enter();
  }});
  const auto snapshot = staging.begin(state.captured, StageMode::kLazy);
  hold.wait_until_entered();
  EXPECT_FALSE(snapshot->staged());
  EXPECT_FALSE(staging.gate().open());
  LiveState::scribble(state.storage(1));  // no gate: as forward does
  LiveState::scribble(state.storage(2));
  hold.release();
  EXPECT_EQ(file_of(snapshot), state.expected_file());
}

TEST(Staging, AStateOfSmallStoragesNeedsNoCopier) {
  const LiveState state({10, 20});
  Staging staging;
  const auto snapshot = staging.begin(state.captured, StageMode::kLazy);
  EXPECT_TRUE(snapshot->staged());
  EXPECT_TRUE(staging.gate().open());
}

// Every thread stops at its first slice until all have one.
TEST(Staging, EagerCopiesOnEveryThreadTheCallersToo) {
  constexpr unsigned kThreads = 3;
  std::latch all(kThreads + 1);
  Staging staging({.threads = kThreads, .probe = [&](std::size_t) {
                     static thread_local bool first = true;
                     if (std::exchange(first, false)) all.arrive_and_wait();
                   }});
  const LiveState state({100 * SliceTable::kSliceBytes});
  const auto snapshot = staging.begin(state.captured, StageMode::kEager);
  EXPECT_EQ(file_of(snapshot), state.expected_file());
}

TEST(Staging, LazyCopiesOnOneThread) {
  std::mutex mutex;
  std::set<std::thread::id> threads;
  Staging staging({.threads = 3, .probe = [&](std::size_t) {
                     const std::scoped_lock lock(mutex);
                     threads.insert(std::this_thread::get_id());
                   }});
  const LiveState state({100 * SliceTable::kSliceBytes});
  const auto snapshot = staging.begin(state.captured, StageMode::kLazy);
  snapshot->wait_all();
  EXPECT_EQ(threads.size(), 1u);
  EXPECT_FALSE(threads.contains(std::this_thread::get_id()));
}

TEST(Staging, ItsThreadsHaveNormalPriorityAndSleepWhenIdle) {
  std::latch all(3);  // each has begun, and so has its name
  Staging staging({.threads = 2, .probe = [&](std::size_t) {
                     static thread_local bool first = true;
                     if (std::exchange(first, false)) all.arrive_and_wait();
                   }});
  const LiveState state({100 * SliceTable::kSliceBytes});
  file_of(staging.begin(state.captured, StageMode::kEager));
  const std::vector<pid_t> threads = test::live_threads("mr-stage");
  EXPECT_EQ(threads.size(), 2u);
  for (const pid_t tid : threads) {
    EXPECT_EQ(getpriority(PRIO_PROCESS, static_cast<id_t>(tid)), getpriority(PRIO_PROCESS, 0));
    test::wait_until_asleep(tid);
  }
}

TEST(Staging, ASnapshotHoldsItsArenaUntilTheLastPointerGoes) {
  const LiveState state({kLarge});
  Staging staging;
  staging.reserve(state.captured);
  EXPECT_TRUE(staging.has_free_slot());
  auto first = staging.begin(state.captured, StageMode::kLazy);
  const std::byte* const arena = first->arena().data();
  EXPECT_FALSE(staging.has_free_slot());
  first->wait_all();
  EXPECT_FALSE(staging.has_free_slot());
  EXPECT_THROW(staging.begin(state.captured, StageMode::kLazy), Error);
  auto second_pointer = first;
  first.reset();
  EXPECT_FALSE(staging.has_free_slot());
  second_pointer.reset();
  EXPECT_TRUE(staging.has_free_slot()) << "whatever staging's own threads still hold";
  EXPECT_EQ(staging.begin(state.captured, StageMode::kEager)->arena().data(), arena) << "reused";
}

TEST(Staging, TwoArenasHoldTwoStates) {
  LiveState state({kLarge, kLarge});
  const auto expected = state.expected_file();
  Staging staging({.slots = 2});
  const auto first = staging.begin(state.captured, StageMode::kLazy);
  staging.gate().writable_all();
  LiveState::scribble(state.live);
  auto second = staging.begin(state.captured, StageMode::kLazy);
  EXPECT_FALSE(staging.has_free_slot());
  EXPECT_THROW(staging.begin(state.captured, StageMode::kLazy), Error);
  EXPECT_EQ(file_of(first), expected);
  EXPECT_NE(file_of(second), expected);
  second.reset();
  EXPECT_TRUE(staging.has_free_slot());
}

TEST(Staging, ASecondArenaCanBeAllowedLater) {
  const LiveState state({kLarge});
  Staging staging;
  staging.allow_two();
  staging.allow_two();
  const auto first = staging.begin(state.captured, StageMode::kEager);
  const auto second = staging.begin(state.captured, StageMode::kEager);
  EXPECT_THROW(staging.begin(state.captured, StageMode::kEager), Error);
}

TEST(Staging, ASnapshotLeftBehindIsFinishedByTheNext) {
  const LiveState state({kLarge, kLarge});
  Staging staging({.slots = 2});
  const auto first = staging.begin(state.captured, StageMode::kLazy);
  const auto second = staging.begin(state.captured, StageMode::kEager);
  EXPECT_TRUE(first->staged());
  EXPECT_TRUE(second->staged());
  EXPECT_EQ(file_of(first), state.expected_file());
}

// The copier is inside a slice of a snapshot whose owner is gone: nothing else is copied, and the
// next save takes the arena when that slice is done.
TEST(Staging, ADroppedSnapshotIsCopiedNoFurther) {
  LiveState state({8 * SliceTable::kSliceBytes});
  test::Hold hold;
  std::atomic<int> claims{0};
  const auto train = std::this_thread::get_id();
  Staging staging({.probe = [&](std::size_t) {
    ++claims;
    if (std::this_thread::get_id() != train) hold.enter();
  }});
  auto dropped = staging.begin(state.captured, StageMode::kLazy);
  hold.wait_until_entered();
  dropped.reset();
  EXPECT_TRUE(staging.has_free_slot());
  const pid_t self = gettid();
  std::thread release([&] {
    test::wait_until_asleep(self);
    EXPECT_EQ(claims, 1);
    hold.release();
  });
  const auto next = staging.begin(state.captured, StageMode::kEager);
  release.join();
  EXPECT_EQ(file_of(next), state.expected_file());
}

TEST(Staging, AbandonOpensTheGate) {
  LiveState state({kLarge, kLarge});
  test::Hold hold;
  Staging staging({.probe = [&](std::size_t) { hold.enter(); }});
  const auto snapshot = staging.begin(state.captured, StageMode::kLazy);
  hold.wait_until_entered();
  EXPECT_FALSE(staging.gate().open());
  hold.release();
  snapshot->abandon("not wanted");
  staging.gate().writable(state.storage(1));
  EXPECT_TRUE(staging.gate().open());
  EXPECT_THROW(file_of(snapshot), SnapshotDiscarded);
}

TEST(Staging, ASnapshotMayOutliveIt) {
  const LiveState state({kLarge});
  std::shared_ptr<Snapshot> staged, open;
  {
    Staging staging({.slots = 2});
    staged = staging.begin(state.captured, StageMode::kEager);
    open = staging.begin(state.captured, StageMode::kLazy);
  }
  EXPECT_EQ(file_of(staged), state.expected_file());
  EXPECT_TRUE(open->finished()) << "live memory is not read after staging is gone";
}

TEST(Staging, MovedTensorsDiscardTheSnapshotInEveryMode) {
  for (const StageMode mode : kModes) {
    LiveState state({kLarge, 100, kLarge});
    // What a strategy's watch compares: versions and pointers at capture, and now.
    std::vector<std::atomic<int>> versions(3);
    std::vector<std::atomic<const std::byte*>> pointers(3);
    const auto watch = [&] {
      return std::make_shared<test::ScriptedWatch>([&](std::size_t i) -> std::string {
        if (versions[i] != 0) return "tensor " + std::to_string(i) + " was written";
        if (pointers[i] != nullptr) return "tensor " + std::to_string(i) + " got other memory";
        return {};
      });
    };
    Staging staging;
    EXPECT_EQ(file_of(staging.begin(state.captured, mode, watch())), state.expected_file());
    versions[1] = 1;
    auto snapshot = staging.begin(state.captured, mode, watch());
    EXPECT_THROW(file_of(snapshot), SnapshotDiscarded);
    EXPECT_THAT(snapshot->discard_reason(), HasSubstr("tensor 1 was written"));
    staging.gate().writable_all();
    EXPECT_TRUE(staging.gate().open());
    snapshot.reset();
    versions[1] = 0;
    pointers[2] = state.live.data();
    snapshot = staging.begin(state.captured, mode, watch());
    EXPECT_THROW(file_of(snapshot), SnapshotDiscarded);
    EXPECT_THAT(snapshot->discard_reason(), HasSubstr("tensor 2 got other memory"));
    staging.gate().writable_all();
    snapshot.reset();
    pointers[2] = nullptr;
    EXPECT_EQ(file_of(staging.begin(state.captured, mode, watch())), state.expected_file())
        << "taken again";
  }
}

// A write that passes no gate and moves no version, before the copy. Returns why the file could not
// be made, or nothing.
std::string raw_write(StagingOptions options) {
  LiveState state({kLarge, kLarge});
  test::Hold hold;
  const auto train = std::this_thread::get_id();
  options.probe = [&](std::size_t) {
    if (std::this_thread::get_id() != train) hold.enter();
  };
  Staging staging(options);
  const auto snapshot = staging.begin(state.captured, StageMode::kLazy);
  hold.wait_until_entered();
  LiveState::scribble(state.storage(1).subspan(77, 1));
  hold.release();
  try {
    EXPECT_NE(file_of(snapshot), state.expected_file());
  } catch (const SnapshotDiscarded& error) {
    return error.what();
  }
  return {};
}

TEST(Staging, ARawWriteIsFoundByTheDebugModeOnly) {
  EXPECT_EQ(raw_write({}), "");
  EXPECT_THAT(raw_write({.verify = true}), HasSubstr("storage 1 was written"));
  setenv("MILLRACE_VERIFY_STAGING", "1", 1);
  EXPECT_THAT(raw_write({}), HasSubstr("storage 1 was written"));
  setenv("MILLRACE_VERIFY_STAGING", "0", 1);
  EXPECT_EQ(raw_write({}), "");
  unsetenv("MILLRACE_VERIFY_STAGING");
}

TEST(Staging, TheDebugModeAcceptsWhatPassesTheGate) {
  Staging staging({.verify = true});
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    LiveState state = LiveState::random(seed);
    const auto snapshot = staging.begin(state.captured, StageMode::kLazy);
    for (std::size_t i = 0; i < state.captured.size(); ++i) {
      staging.gate().writable(state.captured[i].bytes);
      LiveState::scribble(state.storage(i));
    }
    EXPECT_EQ(file_of(snapshot), state.expected_file());
  }
}

TEST(Staging, OptionsAreChecked) {
  EXPECT_THROW(Staging({.slots = 0}), ConfigError);
  EXPECT_THROW(Staging({.block_bytes = 0}), ConfigError);
  EXPECT_THROW(Staging({.block_bytes = 5000}), ConfigError);
}

TEST(StageMode, NamesAndParsing) {
  for (const StageMode mode :
       {StageMode::kAuto, StageMode::kLazy, StageMode::kEager, StageMode::kBlocking}) {
    EXPECT_EQ(parse_stage_mode(stage_mode_name(mode)), mode);
  }
  try {
    parse_stage_mode("blokcing");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.nearest(), "blocking");
  }
}

}  // namespace
}  // namespace millrace
