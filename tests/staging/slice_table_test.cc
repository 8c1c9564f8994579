#include "millrace/runtime/staging/slice_table.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <random>

#include "tests/support/live_state.h"

namespace millrace {
namespace {

using test::LiveState;
using ::testing::ElementsAre;
constexpr std::uint64_t kSlice = SliceTable::kSliceBytes;

TEST(SliceTable, CutsEveryStorageWithoutAGap) {
  for (const std::uint64_t block : {0UL, 4096UL, 8192UL, 1UL << 20}) {
    const LiveState state({3 * kSlice + 1, 0, 1, kSlice, kSlice - 1, 0, 20'000});
    const SliceTable table(state.captured, block);
    for (std::size_t i = 0; i < state.captured.size(); ++i) {
      std::uint64_t at = 0;
      for (std::size_t id = table.first(i); id < table.first(i + 1); ++id) {
        const Slice& slice = table[id];
        EXPECT_EQ(slice.storage, i);
        EXPECT_EQ(slice.offset, at);
        EXPECT_EQ(slice.file_offset, table.layout().data_offset(i) + at);
        EXPECT_LE(slice.size, kSlice);
        EXPECT_GT(slice.size, 0u);
        if (block > 0) {
          const std::uint64_t last = slice.file_offset + slice.size - 1;
          EXPECT_EQ(slice.file_offset / block, last / block) << "crosses a block boundary";
        }
        at += slice.size;
      }
      EXPECT_EQ(at, state.captured[i].bytes.size());
    }
    EXPECT_EQ(table.first(state.captured.size()), table.size());
  }
  EXPECT_EQ(SliceTable(LiveState({3 * kSlice + 1}).captured).size(), 4u);
}

TEST(SliceTable, AGroupIsCopiedSliceBySliceTogether) {
  LiveState state({2 * kSlice, 2 * kSlice, 3 * kSlice, kSlice, kSlice, 2 * kSlice});
  const auto order = [&](const std::vector<std::uint32_t>& groups) {
    for (std::size_t i = 0; i < groups.size(); ++i) state.captured[i].group = groups[i];
    const SliceTable table(state.captured);
    return std::vector<std::uint32_t>(table.copy_order().begin(), table.copy_order().end());
  };
  EXPECT_THAT(order({0, 0, 0, 0, 0, 0}), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
  EXPECT_THAT(order({7, 7, 7, 0, 0, 0}), ElementsAre(0, 2, 4, 1, 3, 5, 6, 7, 8, 9, 10));
  EXPECT_THAT(order({7, 7, 0, 8, 8, 8}), ElementsAre(0, 2, 1, 3, 4, 5, 6, 7, 8, 9, 10));
  EXPECT_THAT(order({1, 1, 1, 1, 1, 1}), ElementsAre(0, 2, 4, 7, 8, 9, 1, 3, 5, 10, 6));
}

TEST(SliceTable, ARingIsCopiedInTheOrderOfTheFile) {
  LiveState state({2 * kSlice, 2 * kSlice});
  for (CapturedStorage& storage : state.captured) storage.group = 1;
  const SliceTable table(state.captured, 1 << 20);
  EXPECT_TRUE(std::is_sorted(table.copy_order().begin(), table.copy_order().end()));
  EXPECT_EQ(table.copy_order().size(), table.size());
}

std::vector<std::size_t> found(const SliceTable& table, std::span<const std::byte> memory) {
  std::vector<std::size_t> ids;
  table.each_in(memory, [&](std::size_t id) {
    ids.push_back(id);
    return true;
  });
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::vector<std::size_t> searched(const SliceTable& table, std::span<const std::byte> memory) {
  std::vector<std::size_t> ids;
  for (std::size_t id = 0; id < table.size(); ++id) {
    const CapturedStorage& storage = table.storages()[table[id].storage];
    const std::byte* const first = storage.bytes.data() + table[id].offset;
    const bool gated = storage.mutation == Mutation::kBehindGate;
    const bool overlaps =
        first < memory.data() + memory.size() && memory.data() < first + table[id].size;
    if (gated && overlaps && !memory.empty()) ids.push_back(id);
  }
  return ids;
}

TEST(SliceTable, FindsTheSlicesOfAnyMemory) {
  for (std::uint32_t seed = 0; seed < 100; ++seed) {
    LiveState state = LiveState::random(seed);
    std::mt19937 random(seed);
    // Storages that overlap others, in part and wholly.
    for (int i = 0; i < 3; ++i) state.captured.push_back({.bytes = state.random_range(random)});
    state.captured.push_back({.bytes = state.live});
    const SliceTable table(state.captured, seed % 2 == 0 ? 0 : 65'536);
    for (int i = 0; i < 30; ++i) {
      const auto range = state.random_range(random, random() % 2 == 0 ? 100 : 300'000);
      ASSERT_EQ(found(table, range), searched(table, range)) << "seed " << seed;
    }
    EXPECT_EQ(found(table, state.live), searched(table, state.live));
    EXPECT_THAT(found(table, std::span(state.live).subspan(5, 0)), ElementsAre());
    const std::vector<std::byte> elsewhere(10);
    EXPECT_THAT(found(table, elsewhere), ElementsAre());
  }
}

TEST(SliceTable, StopsWhereTheVisitorSays) {
  const LiveState state({4 * kSlice});
  const SliceTable table(state.captured);
  std::size_t visited = 0;
  EXPECT_FALSE(table.each_in(state.live, [&](std::size_t id) { return ++visited, id < 2; }));
  EXPECT_EQ(visited, 3u);
}

TEST(SliceTable, KnowsItsCapture) {
  LiveState state({1000, 2000});
  const SliceTable table(state.captured);
  EXPECT_TRUE(table.describes(state.captured, 0));
  EXPECT_FALSE(table.describes(state.captured, 4096));
  EXPECT_FALSE(table.describes(std::span(state.captured).first(1), 0));
  const auto changed = [&](auto change) {
    auto other = state.captured;
    change(other[1]);
    return !table.describes(other, 0);
  };
  EXPECT_TRUE(changed([](CapturedStorage& s) { s.bytes = s.bytes.first(1999); }));
  EXPECT_TRUE(changed([](CapturedStorage& s) { s.bytes = {s.bytes.data() - 1, 2000}; }));
  EXPECT_TRUE(changed([](CapturedStorage& s) { s.mutation = Mutation::kAnyTime; }));
  EXPECT_TRUE(changed([](CapturedStorage& s) { s.group = 1; }));
}

}  // namespace
}  // namespace millrace
