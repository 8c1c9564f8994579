#include "millrace/runtime/staging/device_plan.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "tests/support/live_state.h"

namespace millrace {
namespace {

using test::LiveState;
using ::testing::ElementsAre;
constexpr std::uint64_t kSlice = SliceTable::kSliceBytes;

std::shared_ptr<const SliceTable> table_of(LiveState& state, std::uint64_t block = 0) {
  for (CapturedStorage& storage : state.captured) storage.on_device = true;
  return std::make_shared<SliceTable>(state.captured, block);
}

// Sizes of the copies, chunk by chunk.
std::vector<std::vector<std::uint64_t>> sizes(const DevicePlan& plan) {
  std::vector<std::vector<std::uint64_t>> all(plan.chunks());
  for (std::size_t i = 0; i < plan.chunks(); ++i) {
    for (const DeviceCopy& copy : plan.chunk(i)) all[i].push_back(copy.size);
  }
  return all;
}

TEST(DevicePlan, AStorageIsOneCopyAndSmallOnesShareAChunk) {
  LiveState state({10, 0, 20, 3 * kSlice + 5, 7});
  const DevicePlan plan(table_of(state), 2 * kSlice);
  EXPECT_THAT(sizes(plan),
              ElementsAre(ElementsAre(10, 20, 2 * kSlice), ElementsAre(kSlice + 5, 7)));
  EXPECT_EQ(plan.any_time_chunks(), 0u);
  EXPECT_EQ(plan.chunk_of(0), 0u);
  EXPECT_EQ(plan.chunk_of(plan.table()->size() - 1), 1u);
}

TEST(DevicePlan, WhatMayChangeAtAnyTimeIsTheFirstChunkAndHostMemoryIsInNone) {
  LiveState state({10, 20, 30, 40});
  table_of(state);
  state.captured[2].mutation = Mutation::kAnyTime;
  state.captured[1].on_device = false;
  const DevicePlan plan(std::make_shared<SliceTable>(state.captured));
  EXPECT_THAT(sizes(plan), ElementsAre(ElementsAre(30), ElementsAre(10, 40)));
  EXPECT_EQ(plan.any_time_chunks(), 1u);
  EXPECT_EQ(plan.chunk_of(1), DevicePlan::kNone);
}

TEST(DevicePlan, MuchThatMayChangeAtAnyTimeIsSeveralChunks) {
  LiveState state({10, 3 * kSlice, 2 * kSlice});
  table_of(state);
  state.captured[1].mutation = state.captured[2].mutation = Mutation::kAnyTime;
  const DevicePlan plan(std::make_shared<SliceTable>(state.captured), 2 * kSlice);
  EXPECT_THAT(sizes(plan), ElementsAre(ElementsAre(2 * kSlice), ElementsAre(kSlice, kSlice),
                                       ElementsAre(kSlice), ElementsAre(10)));
  EXPECT_EQ(plan.any_time_chunks(), 3u);
}

TEST(DevicePlan, WhileStreamingNothingCrossesABlockAndTheOrderIsThatOfTheFile) {
  constexpr std::uint64_t kBlock = 16 << 10;
  LiveState state({40'000, 500, 30'000});
  table_of(state);
  state.captured[1].mutation = Mutation::kAnyTime;
  const auto table = std::make_shared<SliceTable>(state.captured, kBlock);
  const DevicePlan plan(table);
  std::uint32_t next = 0;
  for (std::size_t i = 0; i < plan.chunks(); ++i) {
    const std::uint64_t block = (*table)[plan.chunk(i)[0].first_slice].file_offset / kBlock;
    for (const DeviceCopy& copy : plan.chunk(i)) {
      EXPECT_EQ(copy.first_slice, next);
      next = copy.end_slice;
      EXPECT_EQ(copy.from_side, (*table)[copy.first_slice].storage == 1);
    }
    EXPECT_LE(plan.file_end(i), (block + 1) * kBlock);
  }
  EXPECT_EQ(next, table->size());
  EXPECT_EQ(plan.any_time_chunks(), 0u);
}

// Of each chunk the storages, or of a pack those in it.
std::vector<std::vector<std::uint32_t>> storages_of(const DevicePlan& plan) {
  std::vector<std::vector<std::uint32_t>> all(plan.chunks());
  for (std::size_t i = 0; i < plan.chunks(); ++i) {
    for (const DeviceCopy& copy : plan.chunk(i)) {
      all[i].push_back((*plan.table())[copy.first_slice].storage);
    }
  }
  return all;
}

PackRoom ample() { return {1 << 20, 1 << 20, 1000}; }

TEST(DevicePlan, SmallStoragesArePackedBeforeLargeOnesAndEachAtItsPlace) {
  LiveState state({10, 300'000, 20, kPackedStorage, 0, kPackedStorage + 1, 16, 5});
  const DevicePlan plan(table_of(state), DevicePlan::kChunkBytes, ample());
  EXPECT_THAT(storages_of(plan), ElementsAre(ElementsAre(0, 2, 3, 6, 7), ElementsAre(1, 5)));
  EXPECT_THAT(sizes(plan), ElementsAre(ElementsAre(10, 20, kPackedStorage, 16, 5),
                                       ElementsAre(300'000, kPackedStorage + 1)));
  const DevicePack& pack = plan.pack(0);
  EXPECT_EQ(pack.at, 0u);
  EXPECT_EQ(pack.size, 16 + 32 + kPackedStorage + 16 + 16);
  EXPECT_EQ(pack.first_piece, 0u);
  EXPECT_EQ(pack.pieces, 4 + kPackedStorage / kPackPieceBytes);
  EXPECT_EQ(plan.pack(1).pieces, 0u);
  std::vector<std::byte> packed(pack.size);
  pack_on_host(plan.pieces(), packed.data());
  for (const DeviceCopy& copy : plan.chunk(0)) {
    const auto bytes = state.captured[(*plan.table())[copy.first_slice].storage].bytes;
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), packed.begin() + copy.packed_at));
    EXPECT_EQ(copy.packed_at % kPackAlignment, 0u);
    EXPECT_EQ(plan.chunk_of(copy.first_slice), 0u);
  }
}

TEST(DevicePlan, WhatMayChangeAtAnyTimeIsPackedByItself) {
  LiveState state(std::vector<std::uint64_t>(12, 100));
  table_of(state);
  for (const std::size_t i : {1, 3, 5, 7, 9}) state.captured[i].mutation = Mutation::kAnyTime;
  state.captured[0].on_device = false;
  const DevicePlan plan(std::make_shared<SliceTable>(state.captured), DevicePlan::kChunkBytes,
                        ample());
  EXPECT_THAT(storages_of(plan),
              ElementsAre(ElementsAre(1, 3, 5, 7, 9), ElementsAre(2, 4, 6, 8, 10, 11)));
  EXPECT_EQ(plan.any_time_chunks(), 1u);
  EXPECT_EQ(plan.pack(1).first_piece, 5u);
  EXPECT_EQ(plan.pack(1).at, 5 * pack_padded(100)) << "beside the other one";
  EXPECT_EQ(plan.pieces()[5].offset, 0u) << "at the start of the device buffer";
}

TEST(DevicePlan, PacksTakeNoMoreThanTheRoom) {
  LiveState state(std::vector<std::uint64_t>(8, 100));
  const auto table = table_of(state);
  const auto packed = [&](const PackRoom& room) {
    const DevicePlan plan(table, DevicePlan::kChunkBytes, room);
    std::vector<std::size_t> counts;
    for (std::size_t i = 0; i < plan.chunks(); ++i) {
      if (plan.pack(i).pieces > 0) counts.push_back(plan.chunk(i).size());
      EXPECT_LE(plan.pack(i).size, room.at_once);
      EXPECT_LE(plan.pack(i).at + plan.pack(i).size, room.bytes);
    }
    EXPECT_LE(plan.pieces().size(), room.pieces);
    std::size_t all = 0;
    for (const auto& chunk : storages_of(plan)) all += chunk.size();
    EXPECT_EQ(all, 8u) << "the rest is copied";
    return counts;
  };
  EXPECT_THAT(packed({896, 896, 8}), ElementsAre(8));
  EXPECT_THAT(packed({895, 896, 8}), ElementsAre(7));
  EXPECT_THAT(packed({896, 895, 8}), ElementsAre(7, 1));
  EXPECT_THAT(packed({896, 300, 8}), ElementsAre(2, 2, 2, 2));
  EXPECT_THAT(packed({896, 896, 6}), ElementsAre(6));
  EXPECT_THAT(packed({896, 111, 8}), ElementsAre());
  EXPECT_THAT(packed({}), ElementsAre());
}

TEST(DevicePlan, FewSmallStoragesAndWhatStreamsAreNotPacked) {
  LiveState few({100, 200, 300, 300'000});
  EXPECT_TRUE(DevicePlan(table_of(few), DevicePlan::kChunkBytes, ample()).pieces().empty());
  LiveState many(std::vector<std::uint64_t>(20, 100));
  EXPECT_TRUE(DevicePlan(table_of(many, 4096), 4096, ample()).pieces().empty());
}

TEST(DevicePlan, TheRoomOfAStateHoldsAllOfIt) {
  LiveState state({10, 300'000, 20, kPackedStorage, 0, kPackedStorage + 1, 16, 5, 4097});
  const auto table = table_of(state);
  for (const std::uint64_t at_once : {kPackedStorage, 3 * kPackedStorage}) {
    const PackRoom room = pack_room(state.captured, 1, at_once);
    const DevicePlan plan(table, DevicePlan::kChunkBytes, room);
    EXPECT_EQ(room.pieces, plan.pieces().size());
    EXPECT_EQ(room.bytes, 16 + 32 + kPackedStorage + 16 + 16 + 4112);
    EXPECT_EQ(room.at_once, std::min(room.bytes, at_once));
    EXPECT_EQ(pack_room(state.captured, 4, at_once).bytes, 4 * room.bytes);
  }
  state.captured.resize(5);
  EXPECT_EQ(pack_room(state.captured, 1, kPackedStorage).pieces, 0u) << "three are too few";
}

TEST(DevicePlan, NothingIsNoChunk) {
  LiveState state({0, 0});
  EXPECT_EQ(DevicePlan(table_of(state)).chunks(), 0u);
}

}  // namespace
}  // namespace millrace
