#include "millrace/events/subscriptions.h"

#include "tests/events/fixture.h"

namespace millrace::test {
namespace {

class Recorder {  // shaped like a hook
 public:
  explicit Recorder(std::string& log) : log_(log) {}

  void subscribe(Subscriptions& on) {
    on.every<Ping>([this](const Ping&) { log_ += 'd'; });
    on.every<Ping>(10, [this](const Ping&) { log_ += 'p'; });
    on.every<Ping>(&Recorder::note, this);
    on.every<Ping>(Priority::kHighest, &Recorder::note_const, this);
    on.awaited<Ping>([this](const Ping&) { return write('w'); });
    on.awaited<Ping>(Priority::kLow, [this](const Ping&) -> Task<> {
      co_await yield();
      log_ += 'l';
    });
    on.awaited<Ping>(&Recorder::report, this);
    on.awaited<Ping>(Priority::kLowest, &Recorder::report, this);
    on.every<Ping>(100, count_calls);
  }

  static inline int calls = 0;

 private:
  static void count_calls(const Ping&) { ++calls; }
  void note(const Ping& e) { log_ += static_cast<char>('0' + e.value); }
  void note_const(const Ping&) const { log_ += 'h'; }
  Task<> write(char c) {
    co_await yield();
    log_ += c;
  }
  Task<> report(const Ping& e) {
    co_await yield();
    log_ += static_cast<char>('A' + e.value);
  }

  std::string& log_;
};

using Subscribing = BusTest;

TEST_F(Subscribing, EveryFormSubscribesAtItsPriority) {
  Recorder recorder(log_);
  Subscriptions on(bus_, "Recorder", Priority::kNormal);
  recorder.subscribe(on);
  const auto held = on.release();
  EXPECT_EQ(held.size(), 9u);
  Recorder::calls = 0;
  publish(1);
  EXPECT_EQ(log_, "hpd1wBlB");
  EXPECT_EQ(Recorder::calls, 1);
}

TEST_F(Subscribing, TheDefaultPriorityIsTheHooks) {
  Subscriptions late(bus_, "Late", Priority::kVeryLow);
  Subscriptions early(bus_, "Early", Priority::kHigh);
  late.every<Ping>(letter('l'));
  early.every<Ping>(letter('e'));
  EXPECT_EQ(publish_log(), "el");
}

TEST_F(Subscribing, DestroyingItUnsubscribesWhatWasNotReleased) {
  {
    Subscriptions on(bus_, "Hook", 50);
    on.every<Ping>(letter('a'));
    EXPECT_EQ(publish_log(), "a");
  }
  EXPECT_EQ(publish_log(), "");
}

TEST_F(Subscribing, TheReleasedHoldsUnsubscribe) {
  Subscriptions on(bus_, "Hook", 50);
  on.every<Ping>(letter('a'));
  auto held = on.release();
  EXPECT_TRUE(on.release().empty());
  EXPECT_EQ(publish_log(), "a");
  held.clear();
  EXPECT_EQ(publish_log(), "");
}

TEST_F(Subscribing, ErrorsCarryTheHooksName) {
  Subscriptions on(bus_, "NanGuard", 50);
  on.every<Ping>([](const Ping&) { throw Error("loss is NaN"); });
  try {
    publish();
    FAIL();
  } catch (const HookError& error) {
    EXPECT_STREQ(error.what(), "ping in NanGuard: loss is NaN");
  }
}

class Plot {
 public:
  void draw(Pong::Owned e) { texts += e.text; }
  std::string texts;
};

TEST_F(Subscribing, BackgroundTakesCallablesAndMembers) {
  Plot plot;
  int sum = 0;
  Subscriptions on(bus_, "Plot", 50);
  on.background<Pong>({.capacity = 4}, &Plot::draw, &plot);
  on.background<Pong>(Priority::kHigh, {.capacity = 4, .overflow = Overflow::kDropNewest},
                      &Plot::draw, &plot);
  on.background<Ping>({}, [&sum](Ping e) { sum += e.value; });
  on.background<Ping>(90, {.capacity = 1}, [&sum](const Ping& e) { sum += e.value; });
  publish(3);
  const std::string text = "x";
  (void)bus_.publish(Pong{text});
  close();
  EXPECT_EQ(sum, 6);
  EXPECT_EQ(plot.texts, "xx");
}

}  // namespace
}  // namespace millrace::test
