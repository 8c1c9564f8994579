#include "millrace/runtime/device/event_waiter.h"

#include <gmock/gmock.h>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <atomic>
#include <functional>
#include <future>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "millrace/runtime/async/suspend.h"
#include "millrace/runtime/async/task_scope.h"
#include "millrace/runtime/async/train_context.h"
#include "millrace/runtime/device/cpu_device.h"
#include "millrace/runtime/device/device_error.h"
#include "tests/support/alloc_counter.h"
#include "tests/support/live_threads.h"
#include "tests/support/run_task.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// Done when the test says so. To block in it is what the waiter must not do.
class ScriptedEvent final : public DeviceEvent {
 public:
  explicit ScriptedEvent(std::function<bool()> is_done) : is_done_(std::move(is_done)) {}
  bool done() const override { return is_done_(); }
  void wait() const override { ADD_FAILURE() << "somebody blocks in an event"; }
  std::chrono::nanoseconds since(const DeviceEvent&) const override { return {}; }

 private:
  std::function<bool()> is_done_;
};

Task<> await_and_log(EventWaiter& waiter, const DeviceEvent& event, std::string& log, char name) {
  co_await waiter.wait(event);
  log += name;
}

Task<> await_all(EventWaiter& waiter, std::vector<const DeviceEvent*> events, std::string& log) {
  TaskScope scope(co_await asio::this_coro::executor);
  char name = 'a';
  for (const DeviceEvent* event : events) {
    scope.spawn(await_and_log(waiter, *event, log, name++));
  }
  co_await scope.join();
}

// The order in which the waits for these events ended, a for the first.
std::string order_of(std::vector<const DeviceEvent*> events) {
  EventWaiter waiter;
  asio::io_context context(1);
  std::string log;
  test::run_task(context, await_all(waiter, std::move(events), log));
  return log;
}

TEST(EventWaiter, AnEventThatIsDoneNeedsNoThread) {
  const ScriptedEvent event([caller = std::this_thread::get_id()] {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    return true;
  });
  EXPECT_EQ(order_of({&event}), "a");
}

TEST(EventWaiter, ASlowEventHoldsNoOtherBack) {
  std::atomic<bool> fast_asked{false}, fast_ended{false};
  const ScriptedEvent slow([&] { return fast_ended.load(); });
  const ScriptedEvent fast([&] {
    if (!fast_asked.exchange(true)) return false;
    fast_ended = true;
    return true;
  });
  EXPECT_EQ(order_of({&slow, &fast}), "ba");
}

TEST(EventWaiter, ABlockedStreamHoldsNoOtherBack) {
  CpuDevice device;
  const auto blocked = device.make_cpu_stream(), open = device.make_cpu_stream();
  const auto slow = device.make_event(), fast = device.make_event();
  std::promise<void> go_on;
  blocked->launch([opened = go_on.get_future().share()] { opened.wait(); });
  blocked->record(*slow);
  EventWaiter waiter;
  TrainContext train;
  std::string log;
  std::promise<void> slow_ended;
  train.start(await_and_log(waiter, *slow, log, 's'),
              [&](const std::exception_ptr&) { slow_ended.set_value(); });
  open->launch([] {});
  open->record(*fast);
  train.run(await_and_log(waiter, *fast, log, 'f'));
  go_on.set_value();
  slow_ended.get_future().wait();
  EXPECT_EQ(log, "fs");
}

// Three events that are reached between two looks at all of them.
class Together {
 public:
  explicit Together(int looks) : looks_left_(looks) {}
  bool ask(char name) {
    const std::scoped_lock lock(mutex_);
    if (asked_.contains(name)) {  // a new look begins
      if (asked_.size() == 3) --looks_left_;
      asked_.clear();
    }
    asked_.insert(name);
    return looks_left_ <= 0;
  }

 private:
  std::mutex mutex_;
  int looks_left_;
  std::set<char> asked_;
};

TEST(EventWaiter, WaitsThatEndTogetherKeepTheirOrder) {
  for (int looks = 2; looks <= 6; ++looks) {
    Together together(looks);
    const ScriptedEvent first([&] { return together.ask('a'); });
    const ScriptedEvent second([&] { return together.ask('b'); });
    const ScriptedEvent third([&] { return together.ask('c'); });
    EXPECT_EQ(order_of({&first, &second, &third}), "abc") << looks;
  }
}

TEST(EventWaiter, AFailureReachesEveryWaitAndNobodyHangs) {
  CpuDeviceOptions options;
  std::atomic<int> launches{0};
  options.probe = [&](std::string_view operation) {
    if (operation == "launch" && ++launches == 2) throw std::runtime_error("an illegal address");
  };
  CpuDevice device(options);
  const auto stream = device.make_cpu_stream(), other = device.make_cpu_stream();
  const auto event = device.make_event(), after = device.make_event();
  std::promise<void> go_on;
  stream->launch([opened = go_on.get_future().share()] { opened.wait(); });
  stream->launch([] {});
  stream->record(*event);
  other->wait_for(*event);
  other->record(*after);
  go_on.set_value();
  for (const auto* each : {event.get(), after.get()}) {
    EXPECT_THAT([&] { order_of({each}); },
                ThrowsMessage<DeviceError>(HasSubstr("on cpu: an illegal address")));
  }
}

TEST(EventWaiter, AFailureWhileAskingEndsThatWaitOnly) {
  std::atomic<int> asked{0};
  const ScriptedEvent failing([&]() -> bool {
    if (++asked < 3) return false;
    throw DeviceError("query", "gpu", 7, "gone", true);
  });
  std::string log;
  std::atomic<bool> failed{false};
  const ScriptedEvent sound([&] { return failed.load(); });
  EventWaiter waiter;
  TrainContext train;
  std::promise<void> sound_ended;
  train.start(await_and_log(waiter, sound, log, 's'),
              [&](const std::exception_ptr&) { sound_ended.set_value(); });
  EXPECT_THAT([&] { train.run(await_and_log(waiter, failing, log, 'f')); },
              ThrowsMessage<DeviceError>("query on gpu: gone (error 7)"));
  failed = true;
  sound_ended.get_future().wait();
  EXPECT_EQ(log, "s");
}

TEST(EventWaiter, AnEventNeverRecordedIsADefect) {
  CpuDevice device;
  const auto event = device.make_event();
  EXPECT_THROW(order_of({event.get()}), std::logic_error);
}

Task<> destroy_after_a_while(std::optional<EventWaiter>& waiter, const std::atomic<int>& asked) {
  while (asked < 3) co_await yield();
  waiter.reset();
}

Task<> wait_and_destroy(std::optional<EventWaiter>& waiter, const DeviceEvent& event,
                        const std::atomic<int>& asked, std::string& log) {
  TaskScope scope(co_await asio::this_coro::executor);
  scope.spawn(await_and_log(*waiter, event, log, 'a'));
  scope.spawn(await_and_log(*waiter, event, log, 'b'));
  scope.spawn(destroy_after_a_while(waiter, asked));
  co_await scope.join();
}

TEST(EventWaiter, DestroyedItEndsTheWaitsWithAnError) {
  std::atomic<int> asked{0};
  const ScriptedEvent never([&] { return ++asked < 0; });
  std::optional<EventWaiter> waiter;
  waiter.emplace();
  asio::io_context context(1);
  std::string log;
  EXPECT_THAT([&] { test::run_task(context, wait_and_destroy(waiter, never, asked, log)); },
              ThrowsMessage<Error>(HasSubstr("destroyed while an event")));
  EXPECT_EQ(log, "");
}

Task<> await_holding(EventWaiter& waiter, const DeviceEvent& event, std::shared_ptr<int> held) {
  co_await waiter.wait(event);
  *held = 1;
}

// The waiter goes first, then the executor without running again: the frames go with it.
TEST(EventWaiter, AnExecutorThatIsTornDownTakesItsWaitsWithIt) {
  const ScriptedEvent never([] { return false; });
  const auto held = std::make_shared<int>(0);
  {
    asio::io_context context(1);
    EventWaiter waiter;
    asio::co_spawn(context, await_holding(waiter, never, held), [](const std::exception_ptr&) {});
    context.poll();
    EXPECT_GT(held.use_count(), 1);
  }
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_EQ(*held, 0);
}

TEST(EventWaiter, CancellationDoesNotReachAWait) {
  std::atomic<bool> reached{false};
  const ScriptedEvent event([&] { return reached.load(); });
  EventWaiter waiter;
  asio::io_context context(1);
  asio::cancellation_signal cancel;
  const auto held = std::make_shared<int>(0);
  bool ended_early = true;
  asio::co_spawn(context, await_holding(waiter, event, held),
                 asio::bind_cancellation_slot(
                     cancel.slot(), [&](const std::exception_ptr&) { ended_early = !reached; }));
  context.poll();
  cancel.emit(asio::cancellation_type::all);
  context.poll();
  reached = true;
  context.run();
  EXPECT_FALSE(ended_early);
}

TEST(EventWaiter, HundredsOfWaitsCostOneThread) {
  constexpr int kWaits = 500;
  std::atomic<int> asked{0};
  std::atomic<std::size_t> threads{0};
  std::vector<std::unique_ptr<ScriptedEvent>> events;
  std::vector<const DeviceEvent*> waits;
  for (int i = 0; i < kWaits; ++i) {
    events.push_back(std::make_unique<ScriptedEvent>([&] { return ++asked > 2 * kWaits; }));
    waits.push_back(events.back().get());
  }
  const ScriptedEvent counts([&] {
    if (asked >= kWaits) threads = std::max(threads.load(), test::live_threads("mr-events").size());
    return threads > 0;
  });
  waits.push_back(&counts);
  EXPECT_EQ(order_of(waits).size(), kWaits + 1u);
  EXPECT_EQ(threads, 1);
}

// ---- what a wait allocates

// Calls back what is parked with it, from a thread: what suspend() costs by itself.
class Relay {
 public:
  void park(Resumption resume) {
    const std::scoped_lock lock(mutex_);
    parked_ = std::move(resume);
    changed_.notify_one();
  }

 private:
  void run(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (changed_.wait(lock, stop, [this] { return bool(parked_); })) {
      std::exchange(parked_, Resumption())();
    }
  }
  std::mutex mutex_;
  std::condition_variable_any changed_;
  Resumption parked_;
  std::jthread thread_{[this](const std::stop_token& stop) { run(stop); }};
};

Task<> suspend_with(Relay& relay) {
  auto park = [&relay](Resumption resume) { relay.park(std::move(resume)); };
  co_await suspend(park);
}

Task<> allocations_of_suspend(Relay& relay, int times, std::uint64_t& allocations) {
  for (int i = 0; i < 10; ++i) co_await suspend_with(relay);
  const std::uint64_t before = test::process_allocations();
  for (int i = 0; i < times; ++i) co_await suspend_with(relay);
  allocations = test::process_allocations() - before;
}

Task<> allocations_of_wait(EventWaiter& waiter, const DeviceEvent& event, int times,
                           std::uint64_t& allocations) {
  for (int i = 0; i < 10; ++i) co_await waiter.wait(event);
  const std::uint64_t before = test::process_allocations();
  for (int i = 0; i < times; ++i) co_await waiter.wait(event);
  allocations = test::process_allocations() - before;
}

TEST(EventWaiter, AWaitAllocatesWhatSuspendDoesAndNothingElse) {
  constexpr int kTimes = 500;
  std::atomic<int> asked{0};
  const ScriptedEvent every_third([&] { return ++asked % 3 == 0; });
  std::uint64_t of_suspend = 0, of_wait = 0;
  {
    Relay relay;
    asio::io_context context(1);
    test::run_task(context, allocations_of_suspend(relay, kTimes, of_suspend));
  }
  EventWaiter waiter;
  asio::io_context context(1);
  test::run_task(context, allocations_of_wait(waiter, every_third, kTimes, of_wait));
  EXPECT_GT(of_suspend, 0u);
  EXPECT_EQ(of_wait, of_suspend);
  EXPECT_GE(asked, 3 * kTimes) << "every wait was suspended";
}

// ---- many waits, many schedules

Task<> await_reached(EventWaiter& waiter, const DeviceEvent& event, int& ended) {
  co_await waiter.wait(event);
  EXPECT_TRUE(event.done());
  ++ended;  // train thread only
}

Task<> await_in_any_order(EventWaiter& waiter,
                          const std::vector<std::unique_ptr<DeviceEvent>>& events,
                          std::mt19937 random, int& ended) {
  TaskScope scope(co_await asio::this_coro::executor);
  for (int i = 0; i < 40; ++i) {
    scope.spawn(await_reached(waiter, *events[random() % events.size()], ended));
    if (random() % 4 == 0) co_await yield();
  }
  co_await scope.join();
}

TEST(EventWaiter, WaitsEndAfterTheirEventsInManySchedules) {
#ifdef __SANITIZE_THREAD__
  constexpr std::uint32_t kSeeds = 20;
#else
  constexpr std::uint32_t kSeeds = 200;
#endif
  EventWaiter waiter;
  TrainContext train;
  for (std::uint32_t seed = 1; seed <= kSeeds; ++seed) {
    CpuDevice device({.longest_delay = std::chrono::microseconds(50), .seed = seed});
    std::mt19937 random(seed);
    std::vector<std::unique_ptr<DeviceEvent>> events;
    std::vector<std::unique_ptr<CpuStream>> streams;
    for (int i = 0; i < 3; ++i) streams.push_back(device.make_cpu_stream());
    for (int i = 0; i < 20; ++i) {
      events.push_back(device.make_event());
      streams[random() % 3]->launch([] {});
      streams[random() % 3]->record(*events.back());
    }
    int ended = 0;
    train.run(await_in_any_order(waiter, events, random, ended));
    ASSERT_EQ(ended, 40) << "seed " << seed;
  }
}

}  // namespace
}  // namespace millrace
