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
