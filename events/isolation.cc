#include "millrace/events/isolation.h"

#include <utility>

#include "millrace/events/hook_error.h"
#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

std::uint64_t checked(const std::string& hook, Isolation isolation) {
  if (isolation.limit() < 0) {
    throw ConfigError("hooks." + hook + ".disable_after",
                      "must be 0 (never) or more, but is " + std::to_string(isolation.limit()));
  }
  return static_cast<std::uint64_t>(isolation.limit());
}

struct Guarded {
  Subscriber inner;
  std::shared_ptr<IsolatedHook> hook;
};

Task<> nothing() { co_return; }

void run(void* target, const void* event) {
  const Guarded& guarded = *static_cast<Guarded*>(target);
  if (!guarded.hook->disabled()) guarded.inner.run(guarded.inner.target.get(), event);
}

Task<> start(void* target, const void* event) {
  const Guarded& guarded = *static_cast<Guarded*>(target);
  if (guarded.hook->disabled()) return nothing();
  return guarded.inner.start(guarded.inner.target.get(), event);
}

}  // namespace

IsolatedHook::IsolatedHook(std::string name, Isolation isolation)
    : name_(std::move(name)), limit_(checked(name_, isolation)) {}

HookErrors IsolatedHook::errors() const {
  const std::lock_guard lock(mutex_);
  return {name_, errors_, disabled(), last_error_};
}

bool IsolatedHook::contains(std::string_view event) noexcept {
  try {
    throw;
  } catch (const HookError&) {
    return false;
  } catch (...) {
  }
  try {
    HookError::throw_wrapped(event, name_);
  } catch (const HookError& error) {
    count(error);
  } catch (...) {  // no memory for the text
    disabled_ = true;
  }
  return true;
}

void IsolatedHook::count(const HookError& error) noexcept {
  try {
    count(std::string(error.what()));
  } catch (...) {  // no memory to log it: a hook that cannot be counted is not called again
    disabled_ = true;
  }
}

void IsolatedHook::count(const std::string& text) {
  std::uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = ++errors_;
    last_error_ = text;
    if (limit_ != 0 && number >= limit_) disabled_ = true;
  }
  if (!log_) return;
  const std::string of = limit_ == 0 ? "" : " of " + std::to_string(limit_);
  log_(text + " (isolated hook, training goes on; error " + std::to_string(number) + of + ")");
  if (number == limit_) {
    log_("The isolated hook '" + name_ + "' is disabled after " + std::to_string(number) +
         (number == 1 ? " error" : " errors") + "; the last: " + text);
  }
}

Subscriber isolated(Subscriber subscriber, std::shared_ptr<IsolatedHook> hook) {
  Subscriber outer(subscriber.event, subscriber.priority, subscriber.hook);
  outer.isolated = hook;
  outer.queue = subscriber.queue;
  if (outer.queue) outer.queue->isolate(hook);
  if (subscriber.run) outer.run = run;
  if (subscriber.start) outer.start = start;
  outer.target = {new Guarded{std::move(subscriber), std::move(hook)},
                  [](void* target) { delete static_cast<Guarded*>(target); }};
  return outer;
}

}  // namespace millrace
