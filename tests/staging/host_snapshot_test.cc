#include "millrace/runtime/staging/host_snapshot.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <thread>

#include "tests/support/hold.h"
#include "tests/support/live_state.h"

namespace millrace {
namespace {

using test::LiveState;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
constexpr std::uint64_t kSlice = SliceTable::kSliceBytes;

struct Scene {
  explicit Scene(const std::vector<std::uint64_t>& sizes, std::uint64_t block = 0,
                 std::uint64_t blocks = 0)
      : state(sizes), table(std::make_shared<SliceTable>(state.captured, block)) {
    arena.resize(block > 0 ? block * blocks : table->layout().storages_end());
  }
  std::shared_ptr<HostSnapshot> snapshot(SnapshotOptions options = {}) {
    return std::make_shared<HostSnapshot>(table, arena, std::move(options));
  }
  // Whether storage i lies in the arena as it was.
  bool staged_as_captured(std::size_t i, std::span<const std::byte> before) const {
    const auto at = arena.begin() + static_cast<std::ptrdiff_t>(table->layout().data_offset(i));
    return std::equal(before.begin(), before.end(), at);
  }
  LiveState state;
  std::shared_ptr<const SliceTable> table;
  std::vector<std::byte> arena;
};

TEST(Snapshot, IsStagedOnceEverySliceIs) {
  Scene scene({2 * kSlice + 5, 0, 64});
  const auto snapshot = scene.snapshot();
  EXPECT_EQ(snapshot->parts(), 3u);
  EXPECT_EQ(snapshot->slices().size(), 4u);
  EXPECT_FALSE(snapshot->staged());
  EXPECT_TRUE(snapshot->copy_slice(0));
  EXPECT_FALSE(snapshot->copy_slice(0)) << "copied already";
  EXPECT_TRUE(snapshot->copy_part(0));
  EXPECT_FALSE(snapshot->copy_part(0));
  EXPECT_FALSE(snapshot->copy_part(1)) << "nothing in it";
  EXPECT_EQ(snapshot->staged_at(), std::chrono::steady_clock::time_point{});
  snapshot->copy_unclaimed();
  ASSERT_TRUE(snapshot->staged());
  EXPECT_NE(snapshot->staged_at(), std::chrono::steady_clock::time_point{});
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(scene.staged_as_captured(i, scene.state.storage(i)));
  }
}

TEST(Snapshot, NoStoragesIsStagedAtOnce) {
  Scene scene({});
  const auto snapshot = scene.snapshot();
  EXPECT_TRUE(snapshot->staged());
  snapshot->secure_all();
}

TEST(Snapshot, NeedsRoom) {
  Scene scene({1000});
  scene.arena.pop_back();
  EXPECT_THROW(scene.snapshot(), std::logic_error);
  Scene ring({1000}, 4096, 1);
  EXPECT_THROW(ring.snapshot(), std::logic_error);
}

TEST(Snapshot, EverySliceIsClaimedOnceByWhoeverComesFirst) {
  constexpr std::size_t kParts = 100;
  Scene scene(std::vector<std::uint64_t>(kParts, 1000));
  std::vector<std::atomic<int>> claims(kParts);
  const auto snapshot = scene.snapshot({.probe = [&](std::size_t part) { ++claims[part]; }});
  std::atomic<std::size_t> copied{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < kParts; ++i) {
        copied += snapshot->copy_slice(t % 2 == 0 ? i : kParts - 1 - i) ? 1 : 0;
      }
    });
  }
  snapshot->wait_all();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(copied, kParts);
  EXPECT_TRUE(std::all_of(claims.begin(), claims.end(), [](const auto& n) { return n == 1; }));
}

TEST(Snapshot, SecureCopiesTheSlicesThatOverlapAndNoOther) {
  Scene scene({4 * kSlice, 1000, 1000});
  const auto staged_by = [&](std::size_t first, std::size_t last) {
    const auto snapshot = scene.snapshot();
    const auto memory = std::span(scene.state.live).subspan(first, last - first);
    snapshot->secure(memory);
    EXPECT_TRUE(snapshot->secured(memory));
    std::vector<std::size_t> ids;
    for (std::size_t id = 0; id < 6; ++id) {
      if (!snapshot->copy_slice(id)) ids.push_back(id);
    }
    return ids;
  };
  EXPECT_THAT(staged_by(0, 1), ElementsAre(0));
  EXPECT_THAT(staged_by(kSlice - 1, kSlice), ElementsAre(0));
  EXPECT_THAT(staged_by(kSlice - 1, kSlice + 1), ElementsAre(0, 1));
  EXPECT_THAT(staged_by(2 * kSlice, 3 * kSlice), ElementsAre(2));
  EXPECT_THAT(staged_by(4 * kSlice, 4 * kSlice + 100), IsEmpty()) << "the gap";
  EXPECT_THAT(staged_by(4 * kSlice - 1, 4 * kSlice + 101), ElementsAre(3, 4));
  EXPECT_THAT(staged_by(700, 700), IsEmpty());
  EXPECT_THAT(staged_by(0, scene.state.live.size()), ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(Snapshot, SecureWaitsForASliceInOtherHands) {
  Scene scene({2 * kSlice});
  test::Hold hold;
  const auto train = std::this_thread::get_id();
  const auto snapshot = scene.snapshot({.probe = [&](std::size_t) {
    if (std::this_thread::get_id() != train) hold.enter();
  }});
  std::thread copier([&] { snapshot->copy_slice(0); });
  hold.wait_until_entered();
  const auto second = scene.state.storage(0).subspan(kSlice);
  snapshot->secure(second);  // not in its hands
  EXPECT_FALSE(snapshot->secured(scene.state.live));
  const pid_t self = gettid();
  std::thread release([&] {
    test::wait_until_asleep(self);
    hold.release();
  });
  snapshot->secure(scene.state.live);
  EXPECT_TRUE(hold.released());
  EXPECT_TRUE(snapshot->staged());
  copier.join();
  release.join();
}

TEST(Snapshot, TheReaderWaitsForItsSliceOnly) {
  Scene scene({3 * kSlice});
  test::Hold hold;
  std::atomic<int> claims{0};
  const auto snapshot = scene.snapshot({.probe = [&](std::size_t) {
    if (++claims == 1) hold.enter();
  }});
  std::thread copier([&] { snapshot->copy_slice(1); });
  hold.wait_until_entered();
  snapshot->copy_slice(0);
  EXPECT_EQ(snapshot->wait_slice(0).size(), kSlice);
  std::vector<std::byte> middle;
  std::thread reader([&] {
    const auto bytes = snapshot->wait_slice(1);
    middle.assign(bytes.begin(), bytes.end());
  });
  hold.release();
  reader.join();
  copier.join();
  EXPECT_TRUE(std::equal(middle.begin(), middle.end(), scene.state.storage(0).begin() + kSlice));
  EXPECT_FALSE(snapshot->staged());
}

TEST(Snapshot, AbandonStopsCopyingAndWaitsForWhatIsInFlight) {
  Scene scene({8 * kSlice});
  test::Hold hold;
  std::atomic<int> claims{0};
  const auto snapshot = scene.snapshot({.probe = [&](std::size_t) {
    if (++claims == 3) hold.enter();
  }});
  std::thread copier([&] { snapshot->copy_unclaimed(); });
  hold.wait_until_entered();
  EXPECT_FALSE(snapshot->discarded());
  const pid_t self = gettid();
  std::thread release([&] {
    test::wait_until_asleep(self);
    EXPECT_FALSE(snapshot->finished());
    hold.release();
  });
  snapshot->abandon("a newer state took its place");
  EXPECT_TRUE(hold.released());
  EXPECT_TRUE(snapshot->finished());
  EXPECT_FALSE(snapshot->staged());
  copier.join();
  release.join();
  EXPECT_EQ(claims, 3) << "no further slice";
  // Nobody waits for it any more, and nobody reads live memory.
  snapshot->secure(scene.state.live);
  snapshot->secure_all();
  snapshot->copy_unclaimed();
  snapshot->wait_all();
  EXPECT_FALSE(snapshot->copy_slice(7));
  EXPECT_TRUE(snapshot->secured(scene.state.live));
  EXPECT_EQ(claims, 3);
  snapshot->abandon("again");
  EXPECT_EQ(snapshot->discard_reason(), "a newer state took its place");
  try {
    snapshot->wait_slice(0);  // also one that is staged
    FAIL();
  } catch (const SnapshotDiscarded& error) {
    EXPECT_STREQ(error.what(), "a newer state took its place");
  }
}

TEST(Snapshot, AbandonWakesAReader) {
  Scene scene({kSlice});
  const auto snapshot = scene.snapshot();
  std::atomic<pid_t> tid{0};
  std::thread reader([&] {
    tid = gettid();
    EXPECT_THROW(snapshot->wait_slice(0), SnapshotDiscarded);
  });
  while (tid == 0) std::this_thread::yield();
  test::wait_until_asleep(tid);
  snapshot->abandon("given up");
  reader.join();
}

// Every storage behind the gate once, when its last slice is copied and before it counts as staged:
// a writer may move the version from then on.
TEST(Snapshot, AsksTheWatchBeforeAStorageIsWritable) {
  Scene scene({2 * kSlice, 100, 100, 0});
  scene.state.captured[2].mutation = Mutation::kAnyTime;
  scene.table = std::make_shared<SliceTable>(scene.state.captured);
  std::vector<std::size_t> asked;
  std::shared_ptr<HostSnapshot> snapshot;
  SnapshotOptions options;
  options.watch = std::make_shared<test::ScriptedWatch>([&](std::size_t i) {
    asked.push_back(i);
    EXPECT_FALSE(snapshot->secured(scene.state.storage(i)));
    return std::string();
  });
  snapshot = scene.snapshot(options);
  snapshot->copy_slice(1);
  EXPECT_THAT(asked, IsEmpty());
  snapshot->copy_slice(0);
  EXPECT_THAT(asked, ElementsAre(0));
  snapshot->copy_unclaimed();
  EXPECT_THAT(asked, ElementsAre(0, 1));
  EXPECT_TRUE(snapshot->staged());
  EXPECT_FALSE(snapshot->discarded());
}

TEST(Snapshot, AStorageThatMovedDiscardsIt) {
  Scene scene({100, 100, 100});
  SnapshotOptions options;
  options.watch = std::make_shared<test::ScriptedWatch>(
      [&](std::size_t i) { return i == 1 ? "body.weight has other memory" : std::string(); });
  const auto snapshot = scene.snapshot(options);
  snapshot->secure(scene.state.storage(1));
  EXPECT_TRUE(snapshot->discarded());
  EXPECT_TRUE(snapshot->finished()) << "nobody has to wait for the rest";
  EXPECT_FALSE(snapshot->copy_slice(2));
  EXPECT_EQ(snapshot->discard_reason(), "body.weight has other memory");
  EXPECT_THROW(snapshot->throw_if_discarded(), SnapshotDiscarded);
}

TEST(Snapshot, AWatchThatThrowsDiscardsIt) {
  Scene scene({100});
  SnapshotOptions options;
  options.watch = std::make_shared<test::ScriptedWatch>(
      [](std::size_t) -> std::string { throw Error("cannot tell"); });
  const auto snapshot = scene.snapshot(options);
  snapshot->copy_unclaimed();
  EXPECT_EQ(snapshot->discard_reason(), "cannot tell");
}

TEST(Snapshot, AChecksumOfTheCaptureThatDiffersDiscardsIt) {
  Scene scene({100, 100});
  SnapshotOptions options;
  options.checksums = {11, 22};
  const auto snapshot = scene.snapshot(options);
  snapshot->compare(0, 11);
  EXPECT_FALSE(snapshot->discarded());
  snapshot->compare(1, 23);
  EXPECT_TRUE(snapshot->discarded());
  EXPECT_THAT(snapshot->discard_reason(), ::testing::HasSubstr("storage 1"));
  scene.snapshot()->compare(1, 23);  // the mode is off
}

TEST(SnapshotRing, CopiesUntilTheRingIsFullAndGoesOnBehindTheWriter) {
  constexpr std::uint64_t kBlock = 4096;
  Scene scene({10 * kBlock}, kBlock, 2);
  std::atomic<std::size_t> claims{0};
  const auto snapshot = scene.snapshot({.probe = [&](std::size_t) { ++claims; }});
  EXPECT_TRUE(snapshot->streams());
  EXPECT_FALSE(snapshot->rereadable());
  snapshot->attach_writer();
  std::atomic<pid_t> tid{0};
  std::thread copier([&] {
    tid = gettid();
    snapshot->copy_unclaimed();
  });
  while (tid == 0) std::this_thread::yield();
  test::wait_until_asleep(tid);
  EXPECT_EQ(claims, 2u) << "blocks 0 and 1";
  snapshot->release(kBlock - 1);
  test::wait_until_asleep(tid);
  EXPECT_EQ(claims, 2u) << "block 0 is still in use";
  snapshot->release(kBlock);
  snapshot->wait_slice(2);
  test::wait_until_asleep(tid);
  EXPECT_EQ(claims, 3u);
  snapshot->abandon("enough");
  copier.join();
  EXPECT_TRUE(snapshot->finished());
}

TEST(SnapshotRing, TheGateHelpsAndThenWaitsForTheWriter) {
  constexpr std::uint64_t kBlock = 4096;
  Scene scene({4 * kBlock}, kBlock, 2);
  const auto snapshot = scene.snapshot();
  snapshot->secure(scene.state.storage(0).first(100));  // in free blocks: no writer is needed
  EXPECT_TRUE(snapshot->secured(scene.state.storage(0).first(100)));
  snapshot->attach_writer();
  const pid_t self = gettid();
  std::thread writer([&] {
    for (std::uint64_t block = 1; block <= 3; ++block) {
      test::wait_until_asleep(self);
      snapshot->release(block * kBlock);
    }
  });
  snapshot->secure_all();
  EXPECT_TRUE(snapshot->staged());
  writer.join();
}

TEST(SnapshotRing, AGateThatNobodyWouldOpenDiscards) {
  constexpr std::uint64_t kBlock = 4096;
  Scene scene({4 * kBlock}, kBlock, 2);
  const auto snapshot = scene.snapshot();
  snapshot->secure_all();
  EXPECT_TRUE(snapshot->finished());
  EXPECT_THAT(snapshot->discard_reason(), ::testing::HasSubstr("memory budget"));
}

TEST(SnapshotRing, AbandonOpensTheGateOfAWriterThatFailed) {
  constexpr std::uint64_t kBlock = 4096;
  Scene scene({4 * kBlock}, kBlock, 2);
  const auto snapshot = scene.snapshot();
  snapshot->attach_writer();
  const pid_t self = gettid();
  std::thread writer([&] {
    test::wait_until_asleep(self);
    snapshot->abandon("disk full");
  });
  snapshot->secure_all();
  EXPECT_EQ(snapshot->discard_reason(), "disk full");
  writer.join();
}

// Who writes a part of a storage, behind the gate, moves the version of all of it.
TEST(Snapshot, TheWatchIsAskedBeforeAWriterOfAPartPasses) {
  Scene scene({2 * kSlice});
  bool bumped = false;
  SnapshotOptions options;
  options.watch = std::make_shared<test::ScriptedWatch>(
      [&](std::size_t) { return std::string(bumped ? "moved" : ""); });
  const auto snapshot = scene.snapshot(options);
  snapshot->secure(scene.state.storage(0).first(10));
  bumped = true;
  snapshot->copy_unclaimed();
  EXPECT_FALSE(snapshot->discarded());
  EXPECT_TRUE(snapshot->staged());
}

}  // namespace
}  // namespace millrace
