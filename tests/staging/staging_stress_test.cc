// Random states, modes, budgets, writers, readers and endings. Whatever happens, a file that comes
// out holds the state at capture, and nobody waits for ever.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <optional>
#include <random>
#include <thread>

#include "millrace/runtime/staging/staging.h"
#include "tests/support/live_state.h"

namespace millrace {
namespace {

using test::LiveState;
constexpr std::uint64_t kBlock = 16 << 10;

unsigned seeds() {
  const char* const given = std::getenv("MILLRACE_STRESS_SEEDS");
#ifdef __SANITIZE_THREAD__
  constexpr unsigned kDefault = 60;  // half a second each
#else
  constexpr unsigned kDefault = 300;
#endif
  return given != nullptr ? static_cast<unsigned>(std::atoi(given)) : kDefault;
}

enum class End { kFile, kAbandonedByTrain, kAbandonedByWriter, kMoved, kDropped };

struct Round {
  explicit Round(std::uint32_t seed_given) : seed(seed_given), random(seed) {
    options.slots = 1 + random() % 2;
    options.block_bytes = kBlock;
    options.threads = 1 + random() % 3;
    options.verify = random() % 4 == 0;
    options.memory_budget =
        random() % 2 == 0 ? 0 : options.slots * (4'000'000 + random() % 3'000'000);
    options.probe = [this](std::size_t) {
      for (unsigned n = yields.fetch_add(7) % 40; n > 35; --n) std::this_thread::yield();
    };
    mode = static_cast<StageMode>(1 + random() % 3);
    end = static_cast<End>(random() % 12 < 8 ? 0 : 1 + random() % 4);
    moved = random();
  }

  std::uint32_t seed;
  std::mt19937 random;
  StagingOptions options;
  StageMode mode;
  End end;
  std::size_t moved;
  std::atomic<unsigned> yields{0};
};

// The I/O thread: the file, or nothing when the snapshot was discarded.
std::optional<std::vector<std::byte>> write_file(std::shared_ptr<Snapshot> snapshot, End end,
                                                 std::uint64_t piece) {
  try {
    if (end == End::kAbandonedByWriter) {
      snapshot->wait_slice(0);
      snapshot->abandon("the disk failed");
    }
    return test::file_of(snapshot, piece);
  } catch (const SnapshotDiscarded&) {
    return std::nullopt;
  }
}

void run(Round& round, Staging& staging) {
  LiveState state = LiveState::random(round.seed, 4 + round.random() % 20);
  state.captured.front().bytes = std::span(state.live).first(1 + round.random() % 100);
  const auto expected = state.expected_file();
  std::shared_ptr<const CaptureWatch> watch =
      std::make_shared<test::ScriptedWatch>([&](std::size_t i) {
        const bool moved = round.end == End::kMoved && i >= round.moved % state.captured.size();
        return moved ? "moved" : std::string();
      });
  auto snapshot = staging.begin(state.captured, round.mode, watch);
  snapshot->attach_writer();
  std::optional<std::vector<std::byte>> file;
  std::thread writer([&, reader = snapshot, piece = 1 + round.random() % 60'000]() mutable {
    file = write_file(std::move(reader), round.end, piece);
  });
  for (std::size_t i = 0; i < state.captured.size(); ++i) {
    if (state.captured[i].mutation == Mutation::kAnyTime) LiveState::scribble(state.storage(i));
  }
  for (unsigned write = round.random() % 12; write > 0; --write) {
    const auto range = state.random_range(round.random);
    staging.gate().writable(range);
    LiveState::scribble(range);
    if (write == 3 && round.end == End::kAbandonedByTrain) snapshot->abandon("replaced");
    if (write == 3 && round.end == End::kDropped) snapshot.reset();
  }
  if (round.random() % 2 == 0) staging.gate().writable_all();
  writer.join();
  if (round.end == End::kFile) {
    ASSERT_TRUE(file.has_value()) << "seed " << round.seed;
  }
  if (file) {
    ASSERT_EQ(*file, expected) << "seed " << round.seed;
  }
  if (snapshot) snapshot->wait_all();
  staging.gate().writable_all();
  ASSERT_TRUE(staging.gate().open()) << "seed " << round.seed;
}

TEST(StagingStress, FilesHoldTheStateAtCapture) {
  for (std::uint32_t seed = 0; seed < seeds(); ++seed) {
    Round round(seed);
    Staging staging(round.options);
    for (int save = 0; save < 3; ++save) {
      run(round, staging);
      ASSERT_FALSE(testing::Test::HasFatalFailure());
      EXPECT_TRUE(staging.has_free_slot());
      if (round.options.memory_budget > 0) {
        EXPECT_LE(staging.memory(), round.options.memory_budget);
      }
      round.seed += 100'000;
    }
  }
}

}  // namespace
}  // namespace millrace
