// A publish allocates nothing: not inline, not awaited one frame deep, not into a ring.
#include <future>

#include "tests/events/fixture.h"
#include "tests/support/alloc_counter.h"

namespace millrace::test {
namespace {

class Allocation : public BusTest {
 protected:
  void add_inline(int count) {
    for (int i = 0; i < count; ++i) {
      held_.push_back(every((i * 37) % 101, [this](const Ping&) { ++calls_; }));
    }
  }
  void add_awaited(int count) {
    for (int i = 0; i < count; ++i) {
      held_.push_back(awaited((i * 37) % 101, [this](const Ping&) -> Task<> {
        ++calls_;
        co_return;
      }));
    }
  }
  std::uint64_t counted(int publishes) {
    std::uint64_t allocations = ~0ull;
    run_task(count_publishes(bus_, publishes, allocations));
    return allocations;
  }

  static Task<> count_publishes(EventBus& bus, int publishes, std::uint64_t& allocations) {
    const Publisher<Ping> pings = bus.channel<Ping>();
    for (int i = 0; i < 10; ++i) co_await bus.publish(Ping{});  // fills Asio's recycler
    const AllocationCount count;
    for (int i = 0; i < publishes; ++i) co_await pings.publish(Ping{i});
    for (int i = 0; i < publishes; ++i) co_await bus.publish(Ping{i});
    allocations = count.so_far();
  }

  std::vector<Subscription> held_;
  std::uint64_t calls_ = 0;
};

// Outside of io_context::run() Asio recycles nothing: a coroutine frame would be seen.
TEST_F(Allocation, NoFrameAndNoAllocationInlineOutsideRun) {
  add_inline(16);
  const AllocationCount count;
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(bus_.publish(Ping{i}).await_ready());
  EXPECT_EQ(count.so_far(), 0u);
  EXPECT_EQ(calls_, 1600u);
}

TEST_F(Allocation, TheSameCheckSeesAFrameWhereThereIsOne) {
  add_inline(1);
  add_awaited(1);
  const AllocationCount count;
  { const Publishing unawaited = bus_.publish(Ping{}); }
  EXPECT_EQ(count.so_far(), 1u);
}

TEST_F(Allocation, NoneInlineInsideRun) {
  add_inline(16);
  EXPECT_EQ(counted(100), 0u);
  EXPECT_EQ(calls_, 16u * 210);
}

TEST_F(Allocation, NoneWithOneAwaitedAmongInline) {
  add_inline(15);
  add_awaited(1);
  EXPECT_EQ(counted(100), 0u);
  EXPECT_EQ(calls_, 16u * 210);
}

TEST_F(Allocation, NoneWithAllAwaited) {
  add_awaited(16);
  EXPECT_EQ(counted(100), 0u);
  EXPECT_EQ(calls_, 16u * 210);
}

TEST_F(Allocation, NoneForBackgroundWithTrivialCopies) {
  std::promise<void> release;
  std::promise<void> entered;
  const std::uint64_t before = process_allocations();
  const auto a = background({.capacity = 8}, [&](Ping e) {
    if (e.value != -1) return;
    entered.set_value();
    release.get_future().get();
  });
  EXPECT_GT(process_allocations(), before);
  publish(-1);
  entered.get_future().get();
  const AllocationCount count;
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(bus_.publish(Ping{i}).await_ready());
  EXPECT_EQ(count.so_far(), 0u);
  release.set_value();
  close();
  EXPECT_EQ(a.dropped(), 92u);
}

TEST_F(Allocation, NoneForCoalescing) {
  const auto a = background({.capacity = 2, .overflow = Overflow::kCoalesce}, [](Ping) {});
  const AllocationCount count;
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(bus_.publish(Ping{i}).await_ready());
  EXPECT_EQ(count.so_far(), 0u);
  close();
}

TEST_F(Allocation, UnsubscribingDuringAPublishAllocatesOnlyToReclaim) {
  add_inline(4);
  Subscription victim = every(50, [](const Ping&) {});
  victim.reset();
  EXPECT_EQ(counted(10), 0u);
}

}  // namespace
}  // namespace millrace::test
