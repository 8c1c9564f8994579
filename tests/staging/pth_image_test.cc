#include "millrace/runtime/staging/pth_image.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <thread>

#include "millrace/io/pickler.h"
#include "millrace/io/sha256.h"
#include "millrace/runtime/staging/host_snapshot.h"
#include "tests/io/support/pth_file.h"
#include "tests/support/images.h"
#include "tests/support/live_state.h"

namespace millrace {
namespace {

using test::LiveState;

struct Scene {
  explicit Scene(LiveState made, std::uint64_t block = 0, std::uint64_t arena_bytes = 0)
      : state(std::move(made)),
        table(std::make_shared<SliceTable>(state.captured, block)),
        arena(std::max(arena_bytes, block > 0 ? 0 : table->layout().storages_end())) {}
  std::shared_ptr<HostSnapshot> snapshot(SnapshotOptions options = {}) {
    return std::make_shared<HostSnapshot>(table, arena, std::move(options));
  }
  LiveState state;
  std::shared_ptr<const SliceTable> table;
  std::vector<std::byte> arena;
};

TEST(PthImage, IsTheFileWhateverThePieces) {
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    for (const std::uint64_t block : {64UL, 1000UL, 4096UL, 100'000UL, 1UL << 30}) {
      if (block < 4096 && seed > 2) continue;
      Scene scene(LiveState::random(seed, 4));
      const auto snapshot = scene.snapshot();
      snapshot->copy_unclaimed();
      ASSERT_EQ(test::file_of(snapshot, block), scene.state.expected_file())
          << "seed " << seed << ", blocks of " << block;
    }
  }
}

TEST(PthImage, FollowsTheCopier) {
  Scene scene(LiveState::random(3));
  const auto snapshot = scene.snapshot();
  std::thread copier([&] { snapshot->copy_unclaimed(); });
  EXPECT_EQ(test::file_of(snapshot, 4096), scene.state.expected_file());
  copier.join();
}

TEST(PthImage, TheTailMayLieInTheArenaOrBeyond) {
  const LiveState made = LiveState::random(5);
  const std::uint64_t storages = SliceTable(made.captured).layout().storages_end();
  for (const std::uint64_t room : {0UL, 10UL, 5000UL, 1UL << 20}) {
    for (const std::uint64_t block : {512UL, 4096UL, 1UL << 30}) {
      Scene scene(LiveState::random(5), 0, storages + room);
      const auto snapshot = scene.snapshot();
      snapshot->copy_unclaimed();
      EXPECT_EQ(test::file_of(snapshot, block), scene.state.expected_file());
    }
  }
}

TEST(PthImage, CanBeReadAgainAndInAnyOrder) {
  Scene scene(LiveState::random(7));
  const auto snapshot = scene.snapshot();
  snapshot->copy_unclaimed();
  const auto expected = scene.state.expected_file();
  PthImage image(snapshot, pickle::pickle(pickle::Value::list({"state"})),
                 {{"millrace/state", test::pattern(77, 9)}});
  EXPECT_TRUE(image.rereadable());
  ASSERT_EQ(image.size(), expected.size());
  const auto same = [&](std::uint64_t first, std::uint64_t last) {
    const auto bytes = image.wait(first, last);
    return bytes.size() == last - first &&
           std::equal(bytes.begin(), bytes.end(),
                      expected.begin() + static_cast<std::ptrdiff_t>(first));
  };
  EXPECT_TRUE(same(expected.size() - 100, expected.size()));
  EXPECT_TRUE(same(0, expected.size()));
  EXPECT_TRUE(same(1000, 2000));
  EXPECT_TRUE(same(0, expected.size()));
  const auto tail = std::span(expected).subspan(scene.table->layout().storages_end());
  EXPECT_EQ(image.tail_digest(), sha256_hex(tail));
}

TEST(PthImage, StreamsOnceAndInOrder) {
  constexpr std::uint64_t kBlock = 8192;
  for (std::uint32_t seed = 0; seed < 50; ++seed) {
    for (const std::uint64_t blocks : {2UL, 3UL, 7UL}) {
      Scene scene(LiveState::random(seed, 4), kBlock, blocks * kBlock);
      const auto snapshot = scene.snapshot();
      std::thread copier([&] { snapshot->copy_unclaimed(); });
      const std::uint64_t pieces = seed % 3 == 0 ? 512 : seed % 3 == 1 ? 3000 : kBlock;
      const auto file = test::file_of(snapshot, pieces);
      copier.join();
      ASSERT_EQ(file, scene.state.expected_file()) << "seed " << seed << ", " << blocks;
    }
  }
  Scene scene(LiveState({100'000}), kBlock, 2 * kBlock);
  const auto snapshot = scene.snapshot();
  PthImage image(snapshot, {}, {});
  EXPECT_FALSE(image.rereadable());
  EXPECT_EQ(image.window(), kBlock);
  EXPECT_THROW(image.wait(0, kBlock + 1), std::logic_error);
  EXPECT_THROW(image.wait(10, 20), std::logic_error);
}

// Nothing that a directory could follow: wait() throws before the tail, whoever noticed when.
TEST(PthImage, ADiscardedSnapshotHasNoDirectory) {
  const LiveState made({100'000, 5000, 40'000});
  const std::uint64_t end = SliceTable(made.captured).layout().storages_end();
  for (std::size_t bad = 0; bad < 3; ++bad) {
    Scene scene(LiveState({100'000, 5000, 40'000}));
    SnapshotOptions options;
    options.watch = std::make_shared<test::ScriptedWatch>(
        [&](std::size_t i) { return i == bad ? "moved" : std::string(); });
    const auto snapshot = scene.snapshot(options);
    std::thread copier([&] { snapshot->copy_unclaimed(); });
    PthImage image(snapshot, test::pattern(100, 1), {});
    std::uint64_t given = 0;
    try {
      for (; given < image.size(); given += 4096) {
        image.wait(given, std::min(image.size(), given + 4096));
      }
      FAIL() << "the whole file was handed out";
    } catch (const SnapshotDiscarded& error) {
      EXPECT_STREQ(error.what(), "moved");
      EXPECT_LE(given, end);
    }
    copier.join();
  }
}

TEST(PthImage, ARawWriteIsFoundByTheChecksum) {
  for (const std::uint64_t block : {0UL, 8192UL}) {
    Scene scene(LiveState({100'000}), block, 4 * block);
    SnapshotOptions options;
    options.checksums = {12345};  // of what was there at capture, it says
    const auto snapshot = scene.snapshot(options);
    std::thread copier([&] { snapshot->copy_unclaimed(); });
    EXPECT_THROW(test::file_of(snapshot), SnapshotDiscarded);
    copier.join();
  }
}

}  // namespace
}  // namespace millrace
