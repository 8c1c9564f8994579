#include "millrace/runtime/async/mailbox.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>

#include "tests/support/alloc_counter.h"

namespace millrace {
namespace {

std::string drained(Mailbox<int>& box) {
  std::string text;
  while (auto value = box.pop()) text += std::to_string(*value);
  return text;
}

TEST(Mailbox, KeepsOrderThroughWrapAround) {
  Mailbox<int> box(3, Overflow::kDropOldest);
  box.push(1);
  box.push(2);
  EXPECT_EQ(box.pop(), 1);
  box.push(3);
  box.push(4);
  EXPECT_EQ(drained(box), "234");
  EXPECT_EQ(box.dropped(), 0u);
}

TEST(Mailbox, DropOldestKeepsTheNewestAndCounts) {
  Mailbox<int> box(3, Overflow::kDropOldest);
  for (int i = 1; i <= 3; ++i) EXPECT_TRUE(box.push(i));
  EXPECT_FALSE(box.push(4));
  EXPECT_FALSE(box.push(5));
  EXPECT_EQ(box.size(), 3u);
  EXPECT_EQ(box.dropped(), 2u);
  EXPECT_EQ(drained(box), "345");
}

TEST(Mailbox, DropNewestKeepsTheOldestAndCounts) {
  Mailbox<int> box(3, Overflow::kDropNewest);
  for (int i = 1; i <= 3; ++i) EXPECT_TRUE(box.push(i));
  EXPECT_FALSE(box.push(4));
  EXPECT_EQ(box.dropped(), 1u);
  EXPECT_EQ(drained(box), "123");
}

// ---- coalescing

struct Count {
  int id = 0;
  int events = 1;
  void merge(Count&& newer) { events += newer.events; }
};

std::string drained(Mailbox<Count>& box) {
  std::string text;
  while (auto value = box.pop()) {
    text += std::to_string(value->id) + "x" + std::to_string(value->events) + " ";
  }
  return text;
}

TEST(MailboxCoalesce, TheLatestTakesTheNewestPlaceAndOrderHolds) {
  Mailbox<int> box(3, Overflow::kCoalesce);
  for (int i = 1; i <= 3; ++i) EXPECT_TRUE(box.push(i));
  EXPECT_FALSE(box.push(4));
  EXPECT_FALSE(box.push(5));
  EXPECT_EQ(box.size(), 3u);
  EXPECT_EQ(box.coalesced(), 2u);
  EXPECT_EQ(box.dropped(), 0u);
  EXPECT_EQ(box.pop(), 1);
  EXPECT_TRUE(box.push(6)) << "there is room again";
  EXPECT_EQ(drained(box), "256");
}

TEST(MailboxCoalesce, CapacityOneHoldsTheLatestValue) {
  Mailbox<int> box(1, Overflow::kCoalesce);
  for (int i = 1; i <= 9; ++i) box.push(i);
  EXPECT_EQ(drained(box), "9");
  EXPECT_EQ(box.coalesced(), 8u);
}

TEST(MailboxCoalesce, ATypesOwnMergeIsUsedOnlyWhenFull) {
  Mailbox<Count> box(2, Overflow::kCoalesce);
  for (int i = 1; i <= 5; ++i) box.push({i});
  EXPECT_EQ(box.coalesced(), 3u);
  EXPECT_EQ(drained(box), "1x1 2x4 ");
}

TEST(MailboxCoalesce, AGivenFunctionComesBeforeTheTypesOwn) {
  Mailbox<Count> box(1, Overflow::kCoalesce, {.merge = [](Count& waiting, Count&& newer) {
                       waiting.id = waiting.id * 10 + newer.id;
                     }});
  for (int i = 1; i <= 3; ++i) box.push({i});
  EXPECT_EQ(drained(box), "123x1 ");
}

TEST(MailboxCoalesce, ByKindAtOnceInTheWaitingOnesPlace) {
  const auto same = [](const Count& a, const Count& b) { return a.id == b.id; };
  Mailbox<Count> box(3, Overflow::kCoalesce, {.same = same});
  for (const int id : {1, 2, 1, 1, 3, 2}) box.push({id});
  EXPECT_EQ(box.size(), 3u);
  EXPECT_EQ(box.coalesced(), 3u);
  EXPECT_FALSE(box.push({4})) << "full, and none of its kind waits";
  EXPECT_EQ(box.dropped(), 1u);
  EXPECT_EQ(drained(box), "2x2 3x1 4x1 ");
}

TEST(MailboxCoalesce, ByKindThroughWrapAround) {
  const auto same = [](const Count& a, const Count& b) { return a.id == b.id; };
  Mailbox<Count> box(3, Overflow::kCoalesce, {.same = same});
  box.push({1});
  box.push({2});
  box.pop();
  box.pop();
  for (const int id : {5, 6, 7, 5, 7, 6}) box.push({id});
  EXPECT_EQ(drained(box), "5x2 6x2 7x2 ");
}

TEST(MailboxCoalesce, WhatMergeThrowsComesOutAndTheRingIsWhole) {
  Mailbox<int> box(2, Overflow::kCoalesce, {.merge = [](int&, int&&) { throw Error("no"); }});
  box.push(1);
  box.push(2);
  EXPECT_THROW(box.push(3), Error);
  EXPECT_EQ(box.coalesced(), 0u);
  EXPECT_EQ(drained(box), "12");
}

TEST(MailboxCoalesce, AMergeFunctionNeedsThePolicy) {
  EXPECT_THROW(Mailbox<int>(1, Overflow::kDropOldest, {.merge = [](int&, int&&) {}}), ConfigError);
  EXPECT_THROW(Mailbox<int>(1, Overflow::kDropNewest, {.same = [](int, int) { return true; }}),
               ConfigError);
}

TEST(MailboxCoalesce, PushAllocatesNothing) {
  const auto same = [](const Count& a, const Count& b) { return a.id == b.id; };
  Mailbox<Count> box(4, Overflow::kCoalesce, {.same = same});
  const test::AllocationCount count;
  for (int i = 0; i < 100; ++i) box.push({i % 6});
  EXPECT_EQ(count.so_far(), 0u);
}

// Two senders, one reader: each value is in exactly one that was read, or still in the ring.
TEST(MailboxCoalesce, NothingIsLostAmongThreads) {
  Mailbox<Count> box(4, Overflow::kCoalesce);
  constexpr int kEach = 20000;
  auto send = [&box] {
    for (int i = 0; i < kEach; ++i) box.push({1});
  };
  std::thread first(send);
  std::thread second(send);
  int events = 0;
  std::uint64_t read = 0;
  while (events < 2 * kEach) {
    if (const auto value = box.pop()) {
      events += value->events;
      ++read;
    }
  }
  first.join();
  second.join();
  EXPECT_EQ(events, 2 * kEach);
  EXPECT_EQ(read + box.coalesced(), 2u * kEach);
  EXPECT_EQ(box.dropped(), 0u);
}

TEST(Mailbox, RefusesCapacityZero) {
  EXPECT_THROW(Mailbox<int>(0, Overflow::kDropOldest), ConfigError);
}

TEST(Mailbox, TakesMoveOnlyTypesWithoutDefaultConstructor) {
  struct Item {
    explicit Item(int v) : value(std::make_unique<int>(v)) {}
    std::unique_ptr<int> value;
  };
  Mailbox<Item> box(2, Overflow::kDropOldest);
  box.push(Item(1));
  box.push(Item(2));
  box.push(Item(3));
  EXPECT_EQ(*box.pop()->value, 2);
  EXPECT_EQ(*box.pop()->value, 3);
  EXPECT_FALSE(box.pop());
}

TEST(Mailbox, PoppedSlotReleasesItsValueAtOnce) {
  Mailbox<std::shared_ptr<int>> box(4, Overflow::kDropOldest);
  auto value = std::make_shared<int>(1);
  box.push(value);
  box.pop();
  EXPECT_EQ(value.use_count(), 1);
}

TEST(Mailbox, PushAndPopAllocateNothing) {
  Mailbox<int> box(4, Overflow::kDropOldest);
  const test::AllocationCount count;
  for (int i = 0; i < 100; ++i) box.push(i);
  while (box.pop()) {
  }
  EXPECT_EQ(count.so_far(), 0u);
}

TEST(Mailbox, EveryValueIsReceivedOrCounted) {
  Mailbox<int> box(16, Overflow::kDropNewest);
  constexpr int kEach = 5000;
  auto send = [&box] {
    for (int i = 0; i < kEach; ++i) box.push(i);
  };
  std::thread first(send);
  std::thread second(send);
  std::uint64_t received = 0;
  while (received + box.dropped() < 2 * kEach) {
    if (box.pop()) ++received;
  }
  first.join();
  second.join();
  EXPECT_EQ(received + box.dropped(), 2u * kEach);
}

}  // namespace
}  // namespace millrace
