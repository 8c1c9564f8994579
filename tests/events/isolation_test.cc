// Isolated hooks: their errors are logged and counted, everyone else goes on.
#include "millrace/events/isolation.h"

#include <gmock/gmock.h>

#include <future>

#include "millrace/events/subscriptions.h"
#include "millrace/runtime/async/error.h"
#include "tests/events/fixture.h"
#include "tests/support/alloc_counter.h"

namespace millrace::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Task<> publish_pong(EventBus& bus) {
  const std::string text = "t";
  co_await bus.publish(Pong{text});
}

class Isolated : public BusTest {
 protected:
  // A hook whose log lines go to `lines_`.
  std::shared_ptr<IsolatedHook> hook(std::string name, std::int64_t limit = 3) {
    auto made = std::make_shared<IsolatedHook>(std::move(name), Isolation::disable_after(limit));
    made->log_to([this](const std::string& line) { lines_.push_back(line); });
    return made;
  }
  Subscriptions on(const std::shared_ptr<IsolatedHook>& hook) {
    return Subscriptions(bus_, hook->errors().hook, 50, hook);
  }
  static Task<> throw_slowly() {
    co_await yield();
    throw Error("late");
  }
  static Task<> append(std::string& log, char c) {
    log += c;
    co_return;
  }

  std::vector<std::string> lines_;  // of inline and awaited subscribers only: no lock
};

TEST_F(Isolated, AnInlineErrorIsLoggedAndCountedAndTheOthersRun) {
  const auto plot = hook("Plot");
  const auto a = every(10, letter('a'));
  auto subscriptions = on(plot);
  subscriptions.every<Ping>([](const Ping&) { throw Error("no display"); });
  const auto b = every(60, letter('b'));
  EXPECT_EQ(publish_log(), "ab");
  EXPECT_EQ(plot->errors().errors, 1u);
  EXPECT_FALSE(plot->disabled());
  EXPECT_EQ(plot->errors().last_error, "ping in Plot: no display");
  EXPECT_THAT(lines_,
              ElementsAre("ping in Plot: no display (isolated hook, training goes on; error "
                          "1 of 3)"));
}

TEST_F(Isolated, DisabledAfterKErrorsAndSaidOnce) {
  const auto plot = hook("Plot", 2);
  int calls = 0;
  auto subscriptions = on(plot);
  subscriptions.every<Ping>([&](const Ping&) {
    ++calls;
    throw Error("no");
  });
  subscriptions.every<Pong>([&](const Pong&) { log_ += 'p'; });
  subscriptions.awaited<Pong>([&](const Pong&) { return append(log_, 'q'); });
  run_task(publish_pong(bus_));
  EXPECT_EQ(log_, "pq");
  for (int i = 0; i < 5; ++i) publish();
  EXPECT_EQ(calls, 2);
  EXPECT_TRUE(plot->disabled());
  EXPECT_EQ(plot->errors().errors, 2u);
  ASSERT_EQ(lines_.size(), 3u);
  EXPECT_EQ(lines_[2],
            "The isolated hook 'Plot' is disabled after 2 errors; the last: ping in Plot: no");
  log_.clear();
  run_task(publish_pong(bus_));
  EXPECT_EQ(log_, "") << "all subscriptions of the hook are, whatever their event and delivery";
}

TEST_F(Isolated, LimitZeroNeverDisables) {
  const auto plot = hook("Plot", 0);
  auto subscriptions = on(plot);
  subscriptions.every<Ping>([&](const Ping&) { throw Error("no"); });
  for (int i = 0; i < 50; ++i) publish();
  EXPECT_EQ(plot->errors().errors, 50u);
  EXPECT_FALSE(plot->disabled());
  EXPECT_THAT(lines_.back(), HasSubstr("(isolated hook, training goes on; error 50)"));
}

TEST_F(Isolated, ANegativeLimitIsRefused) {
  try {
    IsolatedHook("Plot", Isolation::disable_after(-1));
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.key(), "hooks.Plot.disable_after");
  }
}

TEST_F(Isolated, ErrorsOfAllDeliveriesTogetherReachTheLimit) {
  const auto plot = hook("Plot", 3);
  auto subscriptions = on(plot);
  subscriptions.every<Ping>(10, [](const Ping&) { throw Error("inline"); });
  subscriptions.awaited<Ping>(20, [](const Ping&) -> Task<> { return throw_slowly(); });
  subscriptions.every<Ping>(30, [](const Ping&) { throw Error("behind"); });
  const auto last = every(90, letter('z'));
  EXPECT_EQ(publish_log(), "z");
  EXPECT_TRUE(plot->disabled());
  EXPECT_EQ(plot->errors().last_error, "ping in Plot: behind");
  EXPECT_EQ(publish_log(), "z");
  EXPECT_EQ(plot->errors().errors, 3u);
}

// Every place of a failing subscriber relative to awaited ones, and what is left of the walk.
TEST_F(Isolated, TheWalkGoesOnBehindTheFailureWhereverItIs) {
  for (const int failing : {5, 15, 25, 35}) {
    for (const bool slowly : {false, true}) {
      const auto plot = hook("Plot");
      const auto a = every(0, letter('a'));
      const auto b = every(10, letter('b'));
      const auto c = awaited(20, slow_letter('c'));
      const auto d = every(30, letter('d'));
      const auto e = awaited(40, slow_letter('e'));
      auto subscriptions = on(plot);
      if (slowly) {
        subscriptions.awaited<Ping>(failing, [](const Ping&) { return throw_slowly(); });
      } else {
        subscriptions.every<Ping>(failing, [](const Ping&) { throw Error("no"); });
      }
      EXPECT_EQ(publish_log(), "ab(c)d(e)") << failing << slowly;
      EXPECT_EQ(plot->errors().errors, 1u) << failing << slowly;
    }
  }
}

TEST_F(Isolated, SeveralFailuresInOneWalk) {
  const auto one = hook("One"), two = hook("Two");
  auto first = on(one), second = on(two);
  const auto a = every(5, letter('a'));
  first.every<Ping>(10, [](const Ping&) { throw Error("1"); });
  second.every<Ping>(11, [](const Ping&) { throw 2; });
  const auto b = every(20, letter('b'));
  first.every<Ping>(30, [](const Ping&) { throw Error("3"); });
  EXPECT_EQ(publish_log(), "ab");
  EXPECT_EQ(one->errors().errors, 2u);
  EXPECT_EQ(two->errors().last_error, "ping in Two: an exception that is no std::exception");
}

TEST_F(Isolated, AnotherHooksErrorStillEndsTheWalk) {
  const auto plot = hook("Plot");
  auto subscriptions = on(plot);
  subscriptions.every<Ping>(10, [](const Ping&) { throw Error("contained"); });
  const auto broken = every(
      20, [](const Ping&) { throw Error("disk"); }, "Saver");
  const auto late = every(30, letter('z'));
  EXPECT_THROW(publish(), HookError);
  EXPECT_EQ(log_, "");
  EXPECT_EQ(plot->errors().errors, 1u);
  EXPECT_THROW(publish(), HookError) << "the channel is as it was";
}

// The hook that failed decides, not the one whose call it came through.
TEST_F(Isolated, ANestedErrorOfAHookThatIsNotIsolatedPasses) {
  const auto outer = hook("Outer");
  auto subscriptions = on(outer);
  const std::string text = "t";
  subscriptions.every<Ping>([&](const Ping&) { (void)bus_.publish(Pong{text}); });
  const auto saver = every<Pong>(
      50, [](const Pong&) { throw Error("disk"); }, "Saver");
  try {
    publish();
    FAIL();
  } catch (const HookError& error) {
    EXPECT_STREQ(error.what(), "ping in Outer > pong in Saver: disk");
  }
  EXPECT_EQ(outer->errors().errors, 0u);
}

TEST_F(Isolated, ANestedErrorOfAnIsolatedHookStaysWithIt) {
  const auto inner = hook("Inner");
  auto subscriptions = on(inner);
  subscriptions.awaited<Pong>([](const Pong&) { return throw_slowly(); });
  const auto outer = awaited<Ping>(
      50, [this](const Ping&) { return publish_pong(bus_); }, "Outer");
  const auto last = every(60, letter('z'));
  EXPECT_EQ(publish_log(), "z");
  EXPECT_EQ(inner->errors().errors, 1u);
}

TEST_F(Isolated, APublishInACircleIsTheHooksOwnError) {
  const auto plot = hook("Plot", 1);
  auto subscriptions = on(plot);
  int calls = 0;
  subscriptions.every<Ping>([&](const Ping&) {
    ++calls;
    (void)bus_.publish(Ping{});
  });
  publish();
  EXPECT_EQ(calls, Channel::kDepthLimit);
  EXPECT_TRUE(plot->disabled());
  EXPECT_THAT(plot->errors().last_error, HasSubstr("publishes are under way"));
}

TEST_F(Isolated, UnsubscribingInTheFailingCallIsFine) {
  const auto plot = hook("Plot");
  std::vector<Subscription> held;
  auto subscriptions = on(plot);
  subscriptions.every<Ping>(10, [&](const Ping&) {
    held.clear();
    throw Error("and gone");
  });
  held = subscriptions.release();
  const auto b = every(20, letter('b'));
  EXPECT_EQ(publish_log(), "b");
  EXPECT_EQ(publish_log(), "b");
  EXPECT_EQ(plot->errors().errors, 1u);
}

TEST_F(Isolated, NoFrameAndNoAllocationBeyondTheOrdinary) {
  const auto plot = hook("Plot");
  auto subscriptions = on(plot);
  int calls = 0;
  subscriptions.every<Ping>([&](const Ping&) { ++calls; });
  const AllocationCount count;
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(bus_.publish(Ping{i}).await_ready());
  EXPECT_EQ(count.so_far(), 0u);
  EXPECT_EQ(calls, 100);
}

// ---- background

TEST_F(Isolated, BackgroundErrorsAreCountedAndDoNotFailClose) {
  const auto plot = hook("Plot", 0);
  auto subscriptions = on(plot);
  subscriptions.background<Ping>({}, [](Ping) { throw Error("no"); });
  for (int i = 0; i < 4; ++i) publish();
  close();
  EXPECT_EQ(plot->errors().errors, 4u);
  EXPECT_EQ(bus_.observer_errors(), 4u);
  EXPECT_EQ(bus_.observer_stats()[0].errors, 4u);
  EXPECT_THAT(lines_, ::testing::SizeIs(4)) << "close() joined the thread that wrote them";
}

TEST_F(Isolated, ABackgroundErrorOfAnotherHookIsStillThrown) {
  const auto plot = hook("Plot");
  auto subscriptions = on(plot);
  subscriptions.background<Ping>({}, [](Ping) { throw Error("contained"); });
  const auto other = background(
      {}, [](Ping) { throw Error("thrown"); }, "Other");
  publish();
  try {
    close();
    FAIL();
  } catch (const HookError& error) {
    EXPECT_STREQ(error.what(), "ping in Other: thrown");
  }
}

TEST_F(Isolated, DisablingInTheBackgroundDropsWhatWaitsAndStopsTheInlinePart) {
  const auto plot = hook("Plot", 1);
  auto subscriptions = on(plot);
  std::promise<void> entered, release;
  int calls = 0;
  subscriptions.background<Ping>({}, [&](Ping) {
    ++calls;
    entered.set_value();
    release.get_future().get();
    throw Error("no");
  });
  subscriptions.every<Ping>([this](const Ping&) { log_ += 'i'; });
  publish();
  entered.get_future().get();
  publish();
  publish();
  EXPECT_EQ(log_, "iii");
  release.set_value();
  close();
  EXPECT_TRUE(plot->disabled());
  EXPECT_EQ(calls, 1) << "the two that waited are dropped";
  publish();
  close();
  EXPECT_EQ(log_, "iii");
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace millrace::test
