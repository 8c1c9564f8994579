// Awaited subscribers: order against inline ones, and what happens while one of them is suspended.
#include <optional>

#include "tests/events/fixture.h"

namespace millrace::test {
namespace {

using Awaited = BusTest;

TEST_F(Awaited, FinishesBeforeTheNextSubscriberStarts) {
  const auto a = awaited(10, slow_letter('a'));
  const auto b = every(20, letter('b'));
  const auto c = awaited(30, slow_letter('c'));
  const auto d = awaited(30, slow_letter('d'));
  EXPECT_EQ(publish_log(), "(a)b(c)(d)");
}

Task<> read_late(const Pong& e, std::string& log) {
  co_await yield();
  log += e.text;
}

Task<> publish_temporary(EventBus& bus, std::string text) { co_await bus.publish(Pong{text}); }

TEST_F(Awaited, TheEventLivesUntilTheLastSubscriberEnds) {
  const auto a = awaited<Pong>(50, [this](const Pong& e) { return read_late(e, log_); });
  run_task(publish_temporary(bus_, "text"));
  EXPECT_EQ(log_, "text");
}

Task<> hold_publishing(EventBus& bus, std::string& log) {
  Publishing publishing = bus.publish(Ping{});
  log += '|';
  co_await std::move(publishing);
  log += '.';
}

TEST_F(Awaited, PublishRunsTheInlineHeadAtOnceAndTheRestWhenAwaited) {
  const auto a = every(10, letter('a'));
  const auto b = awaited(20, slow_letter('b'));
  run_task(hold_publishing(bus_, log_));
  EXPECT_EQ(log_, "a|(b).");
}

TEST_F(Awaited, APublishThatIsDroppedUnawaitedLeavesTheChannelUsable) {
  auto captured = std::make_shared<int>(0);
  auto a = awaited(20, [captured, this](const Ping&) { return append_slowly(log_, 'a'); });
  { const Publishing dropped = bus_.publish(Ping{}); }
  EXPECT_EQ(log_, "");
  EXPECT_EQ(publish_log(), "(a)");
  a.reset();
  EXPECT_EQ(captured.use_count(), 1) << "the dropped publish released the channel";
}

Task<> unsubscribe_after(int yields, Subscription& victim, std::string& log) {
  for (int i = 0; i < yields; ++i) co_await yield();
  log += 'x';
  victim.reset();
}

Task<> publish_while(EventBus& bus, Task<> other) {
  TaskScope scope(co_await asio::this_coro::executor);
  scope.spawn(std::move(other));
  co_await bus.publish(Ping{});
  co_await scope.join();
}

TEST_F(Awaited, UnsubscribedWhileAnEarlierOneIsSuspendedIsNotCalled) {
  const auto a = awaited(10, slow_letter('a'));
  auto b = every(20, letter('b'));
  run_task(publish_while(bus_, unsubscribe_after(0, b, log_)));
  EXPECT_EQ(log_, "(xa)");
}

TEST_F(Awaited, AnAwaitedOneUnsubscribedBeforeItsTurnIsNotCalled) {
  const auto a = awaited(10, slow_letter('a'));
  auto b = awaited(20, slow_letter('b'));
  const auto c = every(30, letter('c'));
  run_task(publish_while(bus_, unsubscribe_after(0, b, log_)));
  EXPECT_EQ(log_, "(xa)c");
}

TEST_F(Awaited, UnsubscribedWhileItIsSuspendedItFinishesItsCall) {
  auto captured = std::make_shared<std::string>("!");
  auto a = awaited(10, [this, captured](const Ping&) -> Task<> {
    co_await yield();
    log_ += *captured;  // the closure is kept until the walk ends
  });
  const auto b = every(20, letter('b'));
  run_task(publish_while(bus_, unsubscribe_after(0, a, log_)));
  EXPECT_EQ(log_, "x!b");
  EXPECT_EQ(captured.use_count(), 1);
  EXPECT_EQ(publish_log(), "b");
}

Task<> subscribe_meanwhile(EventBus& bus, std::optional<Subscription>& added, std::string& log) {
  log += '+';
  auto call = [&log](const Ping& e) { log += static_cast<char>('0' + e.value); };
  added = bus.subscribe(inline_subscriber<Ping>("late", 90, call));
  co_await bus.publish(Ping{7});
}

TEST_F(Awaited, ASubscriptionMadeWhileOnePublishIsSuspendedCountsForTheNext) {
  std::optional<Subscription> added;
  const auto a = awaited(10, [this](const Ping& e) -> Task<> {
    if (e.value == 7) co_return;
    co_await append_slowly(log_, 'a');
  });
  run_task(publish_while(bus_, subscribe_meanwhile(bus_, added, log_)));
  EXPECT_EQ(log_, "(+7a)");  // the later publish reached it, the suspended one never does
}

Task<> publish_value(EventBus& bus, int value) { co_await bus.publish(Ping{value}); }

TEST_F(Awaited, TwoPublishesOfOneEventWalkIndependently) {
  const auto a = awaited(10, [this](const Ping& e) -> Task<> {
    for (int i = 0; i < 2 - 2 * e.value; ++i) co_await yield();
    log_ += static_cast<char>('a' + e.value);
  });
  const auto b = every(20, [this](const Ping& e) { log_ += static_cast<char>('0' + e.value); });
  run_task(publish_while(bus_, publish_value(bus_, 1)));
  EXPECT_EQ(log_, "b1a0");  // the second starts and ends while the first is suspended
}

Task<> throws_late() {
  co_await yield();
  throw Error("late");
}

TEST_F(Awaited, AnExceptionStopsTheWalk) {
  const auto a = awaited(
      10, [](const Ping&) { return throws_late(); }, "Thrower");
  const auto b = every(20, letter('b'));
  try {
    publish();
    FAIL();
  } catch (const HookError& error) {
    EXPECT_STREQ(error.what(), "ping in Thrower: late");
  }
  EXPECT_EQ(log_, "");
}

TEST_F(Awaited, AnInlineOneThatThrowsAfterASuspensionIsNamed) {
  const auto a = awaited(10, slow_letter('a'), "First");
  const auto b = every(
      20, [](const Ping&) { throw Error("second"); }, "Second");
  const auto c = awaited(30, slow_letter('c'), "Third");
  try {
    publish();
    FAIL();
  } catch (const HookError& error) {
    EXPECT_STREQ(error.what(), "ping in Second: second");
  }
  EXPECT_EQ(log_, "(a)");
}

TEST_F(Awaited, AnAwaitedOneThatThrowsInsteadOfReturningATaskIsNamed) {
  const auto a = awaited(
      10, [](const Ping&) -> Task<> { throw Error("no task"); }, "Eager");
  EXPECT_THROW(publish(), HookError);
}

}  // namespace
}  // namespace millrace::test
