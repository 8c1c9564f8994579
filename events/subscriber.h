// A subscriber before it has subscribed: everything a channel needs, with the event's type erased.
//
// Hooks do not see it: they use Subscriptions (subscriptions.h). Hosts and tests that subscribe
// without a hook make one with the functions below and hand it to EventBus::subscribe.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "millrace/events/event.h"
#include "millrace/events/observer_queue.h"
#include "millrace/events/priority.h"
#include "millrace/runtime/async/task.h"

namespace millrace {

class IsolatedHook;

struct Subscriber {
  using Run = void (*)(void* target, const void* event);
  using Start = Task<> (*)(void* target, const void* event);

  Subscriber(EventKey key, Priority order, std::string name)
      : event(key), priority(order), hook(std::move(name)) {}

  EventKey event;
  Priority priority;
  std::string hook;                                                      // its name in errors
  Run run = nullptr;                                                     // inline and background
  Start start = nullptr;                                                 // awaited
  std::unique_ptr<void, void (*)(void*)> target{nullptr, [](void*) {}};  // the callable
  std::shared_ptr<ObserverQueue>
      queue;  // background: instead of a target; the observer thread has it too
  std::shared_ptr<IsolatedHook> isolated;  // set by isolated(): its errors end no walk
};

namespace detail {
template <class F>
std::unique_ptr<void, void (*)(void*)> boxed(F call) {
  return {new F(std::move(call)), [](void* target) { delete static_cast<F*>(target); }};
}
}  // namespace detail

// Runs in the publisher's call: void(const E&).
template <class E, class F>
Subscriber inline_subscriber(std::string hook, Priority priority, F call) {
  static_assert(std::is_invocable_v<F&, const E&>,
                "an inline subscriber is called with (const E&)");
  static_assert(std::is_void_v<std::invoke_result_t<F&, const E&>>,
                "an inline subscriber returns void; one that returns a Task<> is an awaited one");
  Subscriber subscriber(event_key<E>(), priority, std::move(hook));
  subscriber.run = [](void* target, const void* event) {
    (*static_cast<F*>(target))(*static_cast<const E*>(event));
  };
  subscriber.target = detail::boxed(std::move(call));
  return subscriber;
}

// Awaited by the publisher before the next subscriber starts: Task<>(const E&). The event stays
// valid until that task ends.
template <class E, class F>
Subscriber awaited_subscriber(std::string hook, Priority priority, F call) {
  static_assert(std::is_invocable_r_v<Task<>, F&, const E&>,
                "an awaited subscriber is called with (const E&) and returns Task<>");
  Subscriber subscriber(event_key<E>(), priority, std::move(hook));
  subscriber.start = [](void* target, const void* event) -> Task<> {
    return (*static_cast<F*>(target))(*static_cast<const E*>(event));
  };
  subscriber.target = detail::boxed(std::move(call));
  return subscriber;
}

// Called on the observer thread with a copy that owns its data: void(E::Owned). `how` is for
// Overflow::kCoalesce.
template <class E, class F>
Subscriber background_subscriber(std::string hook, Priority priority,
                                 const BackgroundOptions& options, F call,
                                 Coalescing<OwnedOf<E>> how = {}) {
  static_assert(
      std::is_invocable_v<F&, OwnedOf<E>>,
      "a background subscriber is called with E::Owned (with E itself, if self-contained)");
  static_assert(std::is_void_v<std::invoke_result_t<F&, OwnedOf<E>>>,
                "a background subscriber returns void: it runs on a plain thread");
  using Queue = TypedObserverQueue<OwnedOf<E>, F>;
  Subscriber subscriber(event_key<E>(), priority, std::move(hook));
  subscriber.run = [](void* target, const void* event) {
    static_cast<Queue*>(target)->push(detail::own(*static_cast<const E*>(event)));
  };
  auto queue = std::make_shared<Queue>(options, std::move(call), std::move(how));
  subscriber.target = {queue.get(), [](void*) {}};
  subscriber.queue = std::move(queue);
  return subscriber;
}

}  // namespace millrace
