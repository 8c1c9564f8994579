// Background subscribers. close() is the synchronisation: it returns when every ring is empty.
#include "millrace/events/observers.h"

#include <future>
#include <memory>
#include <thread>

#include "millrace/events/subscriptions.h"
#include "millrace/runtime/async/train_context.h"
#include "tests/events/fixture.h"

namespace millrace::test {
namespace {

using Background = BusTest;

// Holds the observer thread in a call until open().
class Gate {
 public:
  void open() { opened_.set_value(); }
  void wait() {
    entered_.set_value();
    opened_.get_future().get();
  }
  void until_entered() { entered_.get_future().get(); }

 private:
  std::promise<void> opened_, entered_;
};

TEST_F(Background, RunsOnItsOwnThreadInOrder) {
  std::vector<int> values;
  std::thread::id where;
  const auto a = background({.capacity = 128}, [&](Ping e) {
    values.push_back(e.value);
    where = std::this_thread::get_id();
  });
  for (int i = 0; i < 100; ++i) publish(i);
  close();
  ASSERT_EQ(values.size(), 100u);
  EXPECT_TRUE(std::is_sorted(values.begin(), values.end()));
  EXPECT_NE(where, std::this_thread::get_id());
  EXPECT_EQ(a.dropped(), 0u);
}

TEST_F(Background, ReceivesAnOwnedCopy) {
  std::string seen;
  Gate gate;
  const auto hold = background<Ping>({}, [&](Ping) { gate.wait(); });
  const auto a = background<Pong>({}, [&](Pong::Owned e) { seen = e.text; });
  publish();
  gate.until_entered();
  {
    auto text = std::make_unique<std::string>("a text too long for the small string buffer");
    (void)bus_.publish(Pong{*text});
  }
  gate.open();
  close();
  EXPECT_EQ(seen, "a text too long for the small string buffer");
}

TEST_F(Background, EventsOfAllTypesArriveInTheOrderOfPublishing) {
  Gate gate;
  const auto hold = background<Ping>({}, [&](Ping e) {
    if (e.value == -1) gate.wait();
  });
  const auto a = background<Pong>({}, [&](Pong::Owned e) { log_ += e.text; });
  const auto b = background<Ping>({}, [&](Ping e) { log_ += e.value < 0 ? "" : "i"; });
  publish(-1);
  gate.until_entered();
  for (const std::string text : {"1", "2", "3"}) {
    (void)bus_.publish(Pong{text});
    publish();
  }
  gate.open();
  close();
  EXPECT_EQ(log_, "1i2i3i");
}

TEST_F(Background, NeverDelaysThePublisherAndCountsWhatIsLost) {
  Gate gate;
  std::vector<int> oldest, newest;
  const auto hold = background<Pong>({}, [&](Pong::Owned) { gate.wait(); });
  const auto a = background({.capacity = 3}, [&](Ping e) { newest.push_back(e.value); });
  const auto b = background(
      {.capacity = 3, .overflow = Overflow::kDropNewest},
      [&](Ping e) { oldest.push_back(e.value); }, "Oldest");
  const std::string text;
  (void)bus_.publish(Pong{text});
  gate.until_entered();
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(bus_.publish(Ping{i}).await_ready());
  EXPECT_EQ(a.dropped(), 7u);
  EXPECT_EQ(b.dropped(), 7u);
  gate.open();
  close();
  EXPECT_EQ(newest, (std::vector<int>{7, 8, 9}));
  EXPECT_EQ(oldest, (std::vector<int>{0, 1, 2}));
  const auto stats = bus_.observer_stats();
  ASSERT_EQ(stats.size(), 3u);
  EXPECT_EQ(stats[2].event, "ping");
  EXPECT_EQ(stats[2].hook, "Oldest");
  EXPECT_EQ(stats[2].delivered, 3u);
  EXPECT_EQ(stats[2].dropped, 7u);
}

struct Loaded {  // an event whose owned form merges
  static constexpr std::string_view kName = "loaded";
  struct Owned {
    int bytes;
    void merge(Owned&& newer) { bytes += newer.bytes; }
  };
  int bytes;

  Owned own() const { return {bytes}; }
};

TEST_F(Background, CoalescedEventsAreCountedApart) {
  Gate gate;
  std::vector<int> latest, sums, both;
  const auto hold = background<Pong>({}, [&](Pong::Owned) { gate.wait(); });
  const BackgroundOptions two{.capacity = 2, .overflow = Overflow::kCoalesce};
  const auto a = background(
      two, [&](Ping e) { latest.push_back(e.value); }, "Latest");
  const auto b = background<Loaded>(two, [&](Loaded::Owned e) { sums.push_back(e.bytes); });
  const auto c = bus_.subscribe(background_subscriber<Ping>(
      "Both", 50, two, [&](Ping e) { both.push_back(e.value); },
      {.merge = [](Ping& waiting, Ping&& newer) { waiting.value += 100 * newer.value; }}));
  const std::string text;
  (void)bus_.publish(Pong{text});
  gate.until_entered();
  for (int i = 1; i <= 5; ++i) {
    EXPECT_TRUE(bus_.publish(Ping{i}).await_ready());
    EXPECT_TRUE(bus_.publish(Loaded{i}).await_ready());
  }
  gate.open();
  close();
  EXPECT_EQ(latest, (std::vector<int>{1, 5}));
  EXPECT_EQ(sums, (std::vector<int>{1, 14}));
  EXPECT_EQ(both, (std::vector<int>{1, 1202}));
  for (const auto* subscription : {&a, &b, &c}) {
    EXPECT_EQ(subscription->coalesced(), 3u);
    EXPECT_EQ(subscription->dropped(), 0u);
  }
  const auto stats = bus_.observer_stats();
  ASSERT_EQ(stats.size(), 4u);
  EXPECT_EQ(stats[1].hook, "Latest");
  EXPECT_EQ(stats[1].coalesced, 3u);
  EXPECT_EQ(stats[1].delivered, 2u);
}

TEST_F(Background, EventsOfOneKindCoalesce) {
  Gate gate;
  std::vector<int> seen;
  const auto hold = background<Pong>({}, [&](Pong::Owned) { gate.wait(); });
  Subscriptions on(bus_, "Bars", 50);
  on.background<Ping>(
      {.capacity = 8, .overflow = Overflow::kCoalesce}, [&](Ping e) { seen.push_back(e.value); },
      {.same = [](const Ping& x, const Ping& y) { return x.value % 10 == y.value % 10; }});
  const std::string text;
  (void)bus_.publish(Pong{text});
  gate.until_entered();
  for (const int value : {1, 2, 11, 3, 21, 12}) publish(value);
  gate.open();
  close();
  EXPECT_EQ(seen, (std::vector<int>{21, 12, 3}));
}

// Merged again and again, an event keeps its turn: the others of the observer thread do not get in
// front of it for ever.
TEST_F(Background, AMergedEventKeepsItsTurn) {
  Gate gate;
  std::string order;
  const auto hold = background<Pong>({}, [&](Pong::Owned) { gate.wait(); });
  const auto a = background({.capacity = 1, .overflow = Overflow::kCoalesce},
                            [&](Ping e) { order += "p" + std::to_string(e.value); });
  const auto b = background<Loaded>({}, [&](Loaded::Owned) { order += "l"; });
  const std::string text;
  (void)bus_.publish(Pong{text});
  gate.until_entered();
  for (int i = 1; i <= 3; ++i) {
    (void)bus_.publish(Ping{i});
    (void)bus_.publish(Loaded{1});
  }
  gate.open();
  close();
  EXPECT_EQ(order, "p3lll");
}

TEST_F(Background, AMergeFunctionNeedsThePolicy) {
  const auto merge = [](Ping&, Ping&&) {};
  EXPECT_THROW((void)bus_.subscribe(
                   background_subscriber<Ping>("Plot", 50, {}, [](Ping) {}, {.merge = merge})),
               ConfigError);
}

// The train thread merges while the observer thread reads.
TEST_F(Background, EveryCoalescedEventArrivesInSomething) {
  constexpr int kCount = 20000;
  int bytes = 0;
  std::uint64_t calls = 0;
  const auto a =
      background<Loaded>({.capacity = 2, .overflow = Overflow::kCoalesce}, [&](Loaded::Owned e) {
        bytes += e.bytes;
        ++calls;
      });
  for (int i = 0; i < kCount; ++i) (void)bus_.publish(Loaded{1});
  close();
  EXPECT_EQ(bytes, kCount);
  EXPECT_EQ(calls + a.coalesced(), static_cast<std::uint64_t>(kCount));
}

TEST_F(Background, ErrorsAreCountedAndTheFirstIsThrownByClose) {
  int calls = 0;
  const auto a = background(
      {},
      [&](Ping e) {
        ++calls;
        if (e.value < 2) throw Error("value " + std::to_string(e.value));
      },
      "Plot");
  for (int i = 0; i < 4; ++i) publish(i);
  try {
    close();
    FAIL();
  } catch (const HookError& error) {
    EXPECT_STREQ(error.what(), "ping in Plot: value 0");
    EXPECT_THROW(error.rethrow_nested(), Error);
  }
  EXPECT_EQ(calls, 4) << "an error does not end the observer";
  EXPECT_EQ(bus_.observer_errors(), 2u);
  EXPECT_EQ(bus_.observer_stats()[0].errors, 2u);
  close();  // reported once
}

TEST(BackgroundLog, SeesEveryError) {
  std::vector<std::string> texts;
  EventBus bus([&](const HookError& error) { texts.push_back(error.what()); });
  {
    auto call = [](Ping) { throw Error("no"); };
    const Subscription a = bus.subscribe(background_subscriber<Ping>("Plot", 50, {}, call));
    (void)bus.publish(Ping{});
    (void)bus.publish(Ping{});
    EXPECT_THROW(run_task(bus.close()), HookError);
  }
  EXPECT_EQ(texts, (std::vector<std::string>{"ping in Plot: no", "ping in Plot: no"}));
}

TEST_F(Background, TheBusCanBeUsedAgainAfterClose) {
  int sum = 0;
  const auto a = background({}, [&](Ping e) { sum += e.value; });
  publish(1);
  close();
  EXPECT_EQ(sum, 1);
  publish(2);
  close();
  EXPECT_EQ(sum, 3);
  close();
}

TEST_F(Background, CloseWithoutObserversReturns) { close(); }

TEST_F(Background, UnsubscribingDiscardsWhatWaits) {
  Gate gate;
  std::string seen;
  const auto hold = background<Pong>({}, [&](Pong::Owned) { gate.wait(); });
  auto a = background({}, [&](Ping) { seen += 'a'; });
  const auto b = background({}, [&](Ping) { seen += 'b'; });
  const std::string text;
  (void)bus_.publish(Pong{text});
  gate.until_entered();
  publish();
  a.reset();
  publish();
  gate.open();
  close();
  EXPECT_EQ(seen, "bb");
}

TEST_F(Background, ACallUnderWayKeepsItsCallableWhenUnsubscribed) {
  Gate gate;
  auto captured = std::make_shared<std::string>("still here");
  std::string seen;
  auto a = background({}, [&gate, &seen, captured](Ping) {
    gate.wait();
    seen = *captured;
  });
  publish();
  gate.until_entered();
  a.reset();
  gate.open();
  close();
  EXPECT_EQ(seen, "still here");
  EXPECT_EQ(captured.use_count(), 1);
}

Task<> publish_many(EventBus& bus, int count) {
  const Publisher<Ping> pings = bus.channel<Ping>();
  for (int i = 0; i < count; ++i) {
    co_await pings.publish(Ping{i});
    if (i % 16 == 0) co_await yield();
  }
  co_await bus.close();
}

TEST_F(Background, EveryEventIsDeliveredOrCounted) {
  constexpr int kCount = 20000;
  std::uint64_t received = 0;
  int last = -1;
  const auto a = background({.capacity = 16}, [&](Ping e) {
    EXPECT_GT(e.value, last);
    last = e.value;
    ++received;
  });
  TrainContext train;
  train.run(publish_many(bus_, kCount));
  EXPECT_EQ(received + a.dropped(), static_cast<std::uint64_t>(kCount));
  EXPECT_EQ(last, kCount - 1) << "the newest is never the one that is dropped";
}

TEST_F(Background, CapacityZeroIsRefused) {
  EXPECT_THROW((void)background({.capacity = 0}, [](Ping) {}), ConfigError);
}

void forget_close() {
  auto bus = std::make_unique<EventBus>();
  auto call = [](Ping) {};
  { const Subscription a = bus->subscribe(background_subscriber<Ping>("Plot", 50, {}, call)); }
  bus.reset();
}

TEST(BackgroundDeathTest, ABusThatWasNotClosedTerminates) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(forget_close(), "background subscribers was not closed");
}

}  // namespace
}  // namespace millrace::test
