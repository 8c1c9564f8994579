// What the tests of events/ share: two event types and a bus with short ways to subscribe and
// publish.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "millrace/events/event_bus.h"
#include "millrace/events/hook_error.h"
#include "millrace/runtime/async/suspend.h"
#include "millrace/runtime/async/task_scope.h"
#include "tests/support/run_task.h"

namespace millrace::test {

struct Ping {  // as a user would define one
  static constexpr std::string_view kName = "ping";
  static constexpr bool kSelfContained = true;
  int value = 0;
};

struct Pong {
  static constexpr std::string_view kName = "pong";
  struct Owned {
    std::string text;
  };
  const std::string& text;

  Owned own() const { return {text}; }
};

class BusTest : public ::testing::Test {
 protected:
  template <class E = Ping, class F>
  Subscription every(Priority priority, F call, std::string hook = "hook") {
    return bus_.subscribe(inline_subscriber<E>(std::move(hook), priority, std::move(call)));
  }
  template <class E = Ping, class F>
  Subscription awaited(Priority priority, F call, std::string hook = "hook") {
    return bus_.subscribe(awaited_subscriber<E>(std::move(hook), priority, std::move(call)));
  }
  template <class E = Ping, class F>
  Subscription background(BackgroundOptions options, F call, std::string hook = "hook") {
    return bus_.subscribe(background_subscriber<E>(std::move(hook), 50, options, std::move(call)));
  }

  // Appends a letter when called.
  auto letter(char c) {
    return [this, c](const Ping&) { log_ += c; };
  }
  auto slow_letter(char c) {
    return [this, c](const Ping&) { return append_slowly(log_, c); };
  }

  void publish(int value = 0) { run_task(publish_ping(bus_, value)); }
  std::string publish_log() {
    log_.clear();
    publish();
    return log_;
  }
  void close() { run_task(close_bus(bus_)); }

  static Task<> publish_ping(EventBus& bus, int value) { co_await bus.publish(Ping{value}); }
  static Task<> close_bus(EventBus& bus) { co_await bus.close(); }
  static Task<> append_slowly(std::string& log, char c) {
    log += '(';
    co_await yield();
    log += c;
    co_await yield();
    log += ')';
  }

  EventBus bus_;
  std::string log_;
};

}  // namespace millrace::test
