// The order of calls, and subscribing, unsubscribing and publishing while a publish is under way.
#include "millrace/events/channel.h"

#include <memory>
#include <optional>

#include "tests/events/fixture.h"

namespace millrace::test {
namespace {

using Channels = BusTest;

TEST_F(Channels, CallsByPriorityThenSubscription) {
  const auto a = every(50, letter('a'));
  const auto b = every(10, letter('b'));
  const auto c = every(50, letter('c'));
  const auto d = every(100, letter('d'));
  const auto e = every(0, letter('e'));
  const auto f = every(10, letter('f'));
  EXPECT_EQ(publish_log(), "ebfacd");
  EXPECT_EQ(publish_log(), "ebfacd");
}

TEST_F(Channels, OrderIsOneSequenceAcrossDeliveries) {
  const auto a = every(50, letter('a'));
  const auto b = awaited(50, slow_letter('b'));
  const auto c = every(50, letter('c'));
  const auto d = awaited(10, slow_letter('d'));
  const auto e = every(5, letter('e'));
  const auto f = awaited(50, slow_letter('f'));
  EXPECT_EQ(publish_log(), "e(d)a(b)c(f)");
}

TEST_F(Channels, RemovalKeepsTheOrderOfTheRest) {
  const auto a = every(50, letter('a'));
  auto b = every(50, letter('b'));
  const auto c = every(50, letter('c'));
  b.reset();
  EXPECT_EQ(publish_log(), "ac");
  b = every(50, letter('b'));
  EXPECT_EQ(publish_log(), "acb");
}

TEST_F(Channels, AddedDuringPublishIsCalledFromTheNextOneOn) {
  std::vector<Subscription> added;
  const auto a = every(50, [&](const Ping&) {
    log_ += 'a';
    if (added.empty()) {
      added.push_back(every(0, letter('0')));
      added.push_back(every(50, letter('b')));
      added.push_back(awaited(100, slow_letter('c')));
    }
  });
  EXPECT_EQ(publish_log(), "a");
  EXPECT_EQ(publish_log(), "0ab(c)");
}

TEST_F(Channels, RemovedDuringPublishIsNotCalledAnyMore) {
  Subscription earlier, itself, later, last;
  earlier = every(10, letter('e'));
  itself = every(20, [&](const Ping&) {
    log_ += 'i';
    earlier.reset();
    itself.reset();
    later.reset();
  });
  later = every(30, letter('l'));
  last = every(40, letter('z'));
  EXPECT_EQ(publish_log(), "eiz");
  EXPECT_EQ(publish_log(), "z");
}

TEST_F(Channels, ACallableThatRemovesItselfOutlivesItsCall) {
  auto captured = std::make_shared<int>(1);
  Subscription once;
  once = every(50, [this, captured, &once](const Ping&) {
    once.reset();
    log_ += static_cast<char>('0' + *captured);  // under ASan: the closure must still be there
  });
  EXPECT_EQ(captured.use_count(), 2);
  EXPECT_EQ(publish_log(), "1");
  EXPECT_EQ(captured.use_count(), 1) << "reclaimed when the publish is over";
}

TEST_F(Channels, RemovedOutsidePublishIsDestroyedAtOnce) {
  auto captured = std::make_shared<int>(1);
  auto held = every(50, [captured](const Ping&) {});
  held.reset();
  EXPECT_EQ(captured.use_count(), 1);
}

TEST_F(Channels, ACallableMayHoldTheSubscriptionOfAnother) {
  auto inner = std::make_shared<Subscription>(every(60, letter('i')));
  auto outer = every(50, [inner](const Ping&) {});
  inner.reset();
  EXPECT_EQ(publish_log(), "i");
  outer.reset();  // destroys the closure, which unsubscribes from the same channel meanwhile
  EXPECT_EQ(publish_log(), "");
}

Task<> nested(EventBus& bus, std::string& log, int value) {
  log += static_cast<char>('a' + value);
  if (value < 3) co_await bus.publish(Ping{value + 1});
  log += static_cast<char>('A' + value);
}

TEST_F(Channels, PublishesNest) {
  const auto a = awaited(50, [&](const Ping& e) { return nested(bus_, log_, e.value); });
  const auto b = every(60, [&](const Ping& e) { log_ += static_cast<char>('0' + e.value); });
  EXPECT_EQ(publish_log(), "abcdD3C2B1A0");
}

TEST_F(Channels, InlinePublishesNestAndSeeWhatWasAddedInBetween) {
  std::optional<Subscription> added;
  const auto a = every(50, [&](const Ping& e) {
    log_ += static_cast<char>('a' + e.value);
    if (e.value > 0) return;
    added = every(60, [&](const Ping& inner) { log_ += static_cast<char>('0' + inner.value); });
    (void)bus_.publish(Ping{1});  // ready at once: all subscribers are inline
  });
  EXPECT_EQ(publish_log(), "ab1");
}

TEST_F(Channels, RemovalReachesOlderArraysToo) {
  Subscription victim = every(90, letter('v'));
  std::vector<Subscription> added;
  const auto a = every(10, [&](const Ping&) {
    added.push_back(every(95, letter('n')));  // the walk under way keeps the arrays of its start
    victim.reset();
  });
  EXPECT_EQ(publish_log(), "");
  EXPECT_EQ(publish_log(), "n");
}

TEST_F(Channels, EndlessRecursionIsAnErrorThatNamesTheEvent) {
  int calls = 0;
  const auto a = every(50, [&](const Ping&) {
    ++calls;
    (void)bus_.publish(Ping{});
  });
  try {
    publish();
    FAIL();
  } catch (const HookError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("ping: 32 publishes are under way"), std::string::npos) << text;
  }
  EXPECT_EQ(calls, Channel::kDepthLimit);
  calls = 0;
  EXPECT_THROW(publish(), HookError);
  EXPECT_EQ(calls, Channel::kDepthLimit) << "the count of publishes under way went back to zero";
}

TEST_F(Channels, MoveAssignmentUnsubscribesTheOld) {
  auto held = every(50, letter('a'));
  held = every(50, letter('b'));
  EXPECT_EQ(publish_log(), "b");
  Subscription other = std::move(held);
  EXPECT_EQ(publish_log(), "b");
  EXPECT_TRUE(other);
  EXPECT_FALSE(held);  // NOLINT: a moved-from subscription is empty by contract
}

void destroy_bus_early() {
  auto bus = std::make_unique<EventBus>();
  const Subscription held = bus->subscribe(inline_subscriber<Ping>("Left", 50, [](const Ping&) {}));
  bus.reset();
}

TEST(ChannelDeathTest, ABusDestroyedBeforeItsSubscriptionsTerminates) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(destroy_bus_early(), "destroyed before a subscription to ping by Left");
}

}  // namespace
}  // namespace millrace::test
