#include "millrace/runtime/staging/state_gate.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <thread>

#include "millrace/runtime/staging/staging.h"
#include "tests/support/hold.h"
#include "tests/support/images.h"

namespace millrace {
namespace {

constexpr std::size_t kLarge = 2 * Staging::kSmall;

struct Storages {
  explicit Storages(const std::vector<std::size_t>& sizes) {
    std::size_t total = 0;
    for (const std::size_t size : sizes) total += size;
    live = original = test::pattern(total, 1);
    std::size_t at = 0;
    for (const std::size_t size : sizes) {
      captured.push_back({std::span(live).subspan(at, size)});
      at += size;
    }
  }
  std::span<std::byte> memory(std::size_t first, std::size_t count) {
    return std::span(live).subspan(first, count);
  }
  // Whether the snapshot holds the original bytes of every storage.
  bool intact(Snapshot& snapshot) const {
    snapshot.wait_all();
    const auto arena = snapshot.arena();
    std::size_t at = 0;
    for (std::size_t i = 0; i < captured.size(); ++i) {
      const auto part = arena.subspan(snapshot.layout().data_offset(i), captured[i].bytes.size());
      const auto source = original.begin() + static_cast<std::ptrdiff_t>(at);
      if (!std::equal(part.begin(), part.end(), source)) return false;
      at += part.size();
    }
    return true;
  }
  std::vector<std::byte> live, original;
  std::vector<CapturedStorage> captured;
};

void scribble(std::span<std::byte> memory) {
  for (std::byte& byte : memory) byte = ~byte;
}

TEST(StateGate, IsOpenWithoutASnapshot) {
  StateGate gate;
  EXPECT_TRUE(gate.open());
  const std::vector<std::byte> memory(10);
  gate.writable(memory);
  gate.writable_all();
}

// The copier is inside part 0: everything else can be made writable without it.
TEST(StateGate, BlocksOnlyOnAPartThatIsBeingCopied) {
  Storages storages({kLarge, kLarge, kLarge, kLarge});
  test::Hold hold;
  const auto train = std::this_thread::get_id();
  std::vector<std::size_t> copied_here;
  Staging staging({.probe = [&](std::size_t part) {
    if (std::this_thread::get_id() == train) {
      copied_here.push_back(part);
    } else if (part == 0) {
      hold.enter();
    }
  }});
  const auto snapshot = staging.begin(storages.captured, StageMode::kLazy);
  hold.wait_until_entered();

  std::vector<std::byte> elsewhere(10);
  staging.gate().writable(elsewhere);
  EXPECT_TRUE(copied_here.empty());
  // From the middle of part 1 to the middle of part 2: those two, and not part 3.
  const auto range = storages.memory(kLarge + kLarge / 2, kLarge);
  staging.gate().writable(range);
  scribble(range);
  EXPECT_EQ(copied_here, (std::vector<std::size_t>{1, 2}));
  EXPECT_FALSE(snapshot->staged());
  EXPECT_FALSE(staging.gate().open());

  // Part 0 is in the copier's hands. It goes on only when this thread is known to wait.
  const pid_t self = gettid();
  std::thread release([&] {
    test::wait_until_asleep(self);
    EXPECT_EQ(storages.live[0], storages.original[0]) << "not yet writable";
    hold.release();
  });
  staging.gate().writable(storages.memory(0, 1));
  EXPECT_TRUE(hold.released());
  scribble(storages.memory(0, kLarge));
  release.join();
  EXPECT_TRUE(storages.intact(*snapshot));
  EXPECT_GT(snapshot->gate_time().count(), 0);
}

TEST(StateGate, OpensAgainOnceEverythingIsStaged) {
  Storages storages({kLarge, kLarge});
  Staging staging;
  const auto snapshot = staging.begin(storages.captured, StageMode::kLazy);
  staging.gate().writable_all();
  EXPECT_TRUE(staging.gate().open());
  EXPECT_TRUE(snapshot->staged());
  scribble(storages.live);
  EXPECT_TRUE(storages.intact(*snapshot));
}

// Random sizes, ranges and speeds. The mutator writes right after writable() returns, and the
// snapshot must never hold one of its bytes.
TEST(StateGate, AThousandSchedulesOfCopierAndMutator) {
  std::uint32_t delays = 0;
  std::mt19937 delay;  // guarded by delay_mutex
  std::mutex delay_mutex;
  Staging staging({.probe = [&](std::size_t) {
    unsigned yields = 0;
    {
      const std::lock_guard lock(delay_mutex);
      yields = delay() % 4 == 0 ? delay() % 20 : 0;
      delays += yields > 0 ? 1 : 0;
    }
    for (; yields > 0; --yields) std::this_thread::yield();
  }});
  for (unsigned seed = 0; seed < 1000; ++seed) {
    std::mt19937 random(seed);
    {
      const std::lock_guard lock(delay_mutex);
      delay.seed(seed);
    }
    std::vector<std::size_t> sizes;
    for (int i = 0; i < 6; ++i) sizes.push_back(1 + random() % (2 * Staging::kSmall));
    sizes[random() % 6] = 0;
    Storages storages(sizes);
    const auto snapshot = staging.begin(storages.captured, StageMode::kLazy);
    for (int write = 0; write < 8; ++write) {
      const std::size_t first = random() % storages.live.size();
      const std::size_t count = 1 + random() % (storages.live.size() - first);
      const auto range = storages.memory(first, std::min<std::size_t>(count, 20'000));
      staging.gate().writable(range);
      scribble(range);
      if (random() % 4 == 0) std::this_thread::yield();
    }
    ASSERT_TRUE(storages.intact(*snapshot)) << "seed " << seed;
    staging.gate().writable_all();
  }
  EXPECT_GT(delays, 100u);
}

}  // namespace
}  // namespace millrace
