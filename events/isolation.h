// Isolation: hooks whose errors do not end the run.
//
// An exception of a hook ends the stage, and with it the run, except when the hook is isolated:
// then it is logged and counted, the other subscribers of the event run as if nothing had happened,
// and after k errors none of the hook's subscriptions is called any more. For hooks that training
// can do without: plots, notifications, progress. Never for one that others rely on.
//
// The rule covers every delivery. Two things pass all the same: an error of another, not isolated
// hook, which comes through an isolated one because that published the event; and an error before
// training (attach, subscribe, load_state), where stopping costs nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "millrace/events/subscriber.h"

namespace millrace {

class HookError;

// What a hook asks for; the default is none.
class Isolation {
 public:
  static constexpr Isolation none() { return Isolation(false, 0); }
  // Disabled after so many errors, from all subscriptions together; 0: never disabled.
  static constexpr Isolation disable_after(std::int64_t errors = 3) {
    return Isolation(true, errors);
  }

  constexpr bool isolated() const noexcept { return isolated_; }
  constexpr std::int64_t limit() const noexcept { return limit_; }

 private:
  constexpr Isolation(bool isolated, std::int64_t limit) : isolated_(isolated), limit_(limit) {}
  bool isolated_;
  std::int64_t limit_;
};

struct HookErrors {
  std::string hook;
  std::uint64_t errors = 0;
  bool disabled = false;
  std::string last_error;  // "<event> in <hook>: <text>"; empty when there was none
};

// The count of one isolated hook, which its subscribers share. Any thread.
class IsolatedHook {
 public:
  using Log = std::function<void(const std::string& line)>;  // any thread; must not throw

  // Throws ConfigError for a negative limit.
  IsolatedHook(std::string name, Isolation isolation);

  // Before the hook is subscribed. Receives a line for each error, and one when it is disabled.
  void log_to(Log log) { log_ = std::move(log); }

  bool disabled() const noexcept { return disabled_.load(std::memory_order_relaxed); }
  HookErrors errors() const;

  // While an exception of the hook is handled, `event` says where: counts it. False for a
  // HookError, which is another hook's: it has to pass.
  bool contains(std::string_view event) noexcept;
  void count(const HookError& error) noexcept;

 private:
  void count(const std::string& text);

  const std::string name_;
  const std::uint64_t limit_;
  Log log_;
  std::atomic<bool> disabled_{false};
  mutable std::mutex mutex_;  // guards what follows
  std::uint64_t errors_ = 0;
  std::string last_error_;
};

// The subscriber as part of an isolated hook: not called any more once that is disabled. Costs the
// look at one flag, and nothing where a hook is not isolated.
Subscriber isolated(Subscriber subscriber, std::shared_ptr<IsolatedHook> hook);

}  // namespace millrace
