#include "millrace/runtime/engine/snapshot.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <thread>

#include "millrace/io/crc32.h"
#include "tests/support/hold.h"
#include "tests/support/images.h"

namespace millrace {
namespace {

// Storages of these sizes in one buffer, with gaps between them, and an arena.
struct Memory {
  explicit Memory(const std::vector<std::uint64_t>& sizes) : layout(sizes) {
    std::size_t total = 0;
    for (const std::uint64_t size : sizes) total += size + kGap;
    live = test::pattern(total, 1);
    std::size_t at = 0;
    for (const std::uint64_t size : sizes) {
      storages.push_back({std::span(live).subspan(at, size)});
      at += size + kGap;
    }
    arena.resize(layout.storages_end());
  }
  Snapshot snapshot(Snapshot::CopyProbe probe = {}) {
    return {storages, layout, arena, std::move(probe)};
  }
  static constexpr std::size_t kGap = 100;
  PthLayout layout;
  std::vector<std::byte> live;
  std::vector<CapturedStorage> storages;
  std::vector<std::byte> arena;
};

TEST(Snapshot, AStagedPartIsFinalHeaderAndCrcIncluded) {
  Memory memory({1000, 0, 64, 5000});
  Snapshot snapshot = memory.snapshot();
  EXPECT_EQ(snapshot.parts(), 4u);
  EXPECT_FALSE(snapshot.staged());
  EXPECT_EQ(snapshot.staged_at(), std::chrono::steady_clock::time_point{});
  snapshot.copy_unclaimed();
  ASSERT_TRUE(snapshot.staged());
  EXPECT_NE(snapshot.staged_at(), std::chrono::steady_clock::time_point{});
  std::vector<std::byte> expected(memory.layout.storages_end());
  for (std::size_t i = 0; i < 4; ++i) {
    const auto bytes = memory.storages[i].bytes;
    EXPECT_EQ(snapshot.crcs()[i], crc32(bytes));
    const auto header = memory.layout.header_offset(i);
    const auto data = memory.layout.data_offset(i);
    memory.layout.write_header(i, crc32(bytes), std::span(expected).subspan(header, data - header));
    std::copy(bytes.begin(), bytes.end(), expected.begin() + static_cast<std::ptrdiff_t>(data));
  }
  EXPECT_EQ(memory.arena, expected);
}

TEST(Snapshot, NoStoragesIsStagedAtOnce) {
  Memory memory({});
  Snapshot snapshot = memory.snapshot();
  EXPECT_TRUE(snapshot.staged());
  snapshot.secure_all();
}

TEST(Snapshot, EveryPartIsClaimedOnceByWhoeverComesFirst) {
  constexpr std::size_t kParts = 200;
  Memory memory(std::vector<std::uint64_t>(kParts, 300));
  std::vector<std::atomic<int>> claims(kParts);
  Snapshot snapshot = memory.snapshot([&](std::size_t part) { ++claims[part]; });
  std::atomic<std::size_t> copied{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < kParts; ++i) {
        copied += snapshot.copy_part(t % 2 == 0 ? i : kParts - 1 - i) ? 1 : 0;
      }
    });
  }
  snapshot.wait_all();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(copied, kParts);
  EXPECT_TRUE(std::all_of(claims.begin(), claims.end(), [](const auto& n) { return n == 1; }));
}

TEST(Snapshot, SecureCopiesThePartsThatOverlapAndNoOther) {
  Memory memory({1000, 1000, 1000, 1000, 1000});
  const auto claimed_by = [&](std::size_t first, std::size_t last) {
    std::vector<std::size_t> parts;
    Snapshot snapshot = memory.snapshot([&](std::size_t part) { parts.push_back(part); });
    snapshot.secure(std::span(memory.live).subspan(first, last - first));
    return parts;
  };
  using ::testing::ElementsAre;
  using ::testing::IsEmpty;
  EXPECT_THAT(claimed_by(0, 1), ElementsAre(0));
  EXPECT_THAT(claimed_by(999, 1000), ElementsAre(0));
  EXPECT_THAT(claimed_by(1000, 1100), IsEmpty()) << "the gap behind part 0";
  EXPECT_THAT(claimed_by(1000, 1101), ElementsAre(1));
  EXPECT_THAT(claimed_by(2050, 3301), ElementsAre(1, 2, 3));
  EXPECT_THAT(claimed_by(0, memory.live.size()), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(claimed_by(700, 700), IsEmpty());
  const std::vector<std::byte> elsewhere(10);
  Snapshot snapshot = memory.snapshot([](std::size_t) { FAIL(); });
  snapshot.secure(elsewhere);
}

TEST(Snapshot, WaitingForBytesWaitsForTheirPartsOnly) {
  Memory memory({1000, 1000, 1000});
  test::Hold hold;
  Snapshot snapshot = memory.snapshot([&](std::size_t part) {
    if (part == 1) hold.enter();
  });
  std::thread copier([&] { snapshot.copy_part(1); });
  hold.wait_until_entered();
  EXPECT_FALSE(snapshot.copy_part(1)) << "claimed";
  snapshot.copy_part(0);
  snapshot.copy_part(2);
  const auto first = snapshot.wait_bytes(0, memory.layout.header_offset(1));
  EXPECT_EQ(first.size(), memory.layout.header_offset(1));
  snapshot.wait_bytes(memory.layout.data_offset(2), memory.layout.storages_end());
  EXPECT_FALSE(snapshot.staged());
  std::vector<std::byte> middle;
  std::thread reader([&] {
    const auto bytes =
        snapshot.wait_bytes(memory.layout.data_offset(1), memory.layout.data_offset(1) + 1);
    middle.assign(bytes.begin(), bytes.end());
  });
  hold.release();
  reader.join();
  copier.join();
  EXPECT_EQ(middle[0], memory.storages[1].bytes[0]);
  EXPECT_TRUE(snapshot.staged());
}

}  // namespace
}  // namespace millrace
