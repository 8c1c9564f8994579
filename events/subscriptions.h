// Subscriptions: what a hook's `void subscribe(Subscriptions& on)` receives.
//
//   void subscribe(Subscriptions& on) override {
//     // Inline: a plain call.
//     on.every<AfterTrainIter>([this](const AfterTrainIter& e) { ... });
//     // Awaited: a coroutine, finished before the next subscriber starts. It may publish events.
//     on.awaited<AfterValEpoch>(Priority::kLow, &Report::write, this);
//     // Background: a copy of the event, on a thread of its own.
//     on.background<CheckpointCommitted>({.capacity = 8}, [](CheckpointRow row) { ... });
//   }
//
// Each call subscribes at once, with the hook's default priority or the one given first. What the
// callables refer to (the hook, as a rule) must outlive the subscriptions, whose holds the owner of
// the hook takes with release(). Train context.
//
// This is the header that users' hooks include, and it is kept cheap: it names no channel.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "millrace/events/priority.h"
#include "millrace/events/subscriber.h"
#include "millrace/events/subscription.h"
#include "millrace/runtime/async/task.h"

namespace millrace {

class EventBus;
class IsolatedHook;

template <class M>
concept MemberFunction = std::is_member_function_pointer_v<M>;

class Subscriptions {
 public:
  // `isolated` when an error of the hook is to be contained (isolation.h); null otherwise.
  Subscriptions(EventBus& bus, std::string hook, Priority default_priority,
                std::shared_ptr<IsolatedHook> isolated = nullptr);
  ~Subscriptions();  // unsubscribes what was not released

  // void(const E&), called in the publisher's frame.
  template <class E, class F>
  void every(Priority priority, F call) {
    add(inline_subscriber<E>(hook_, priority, std::move(call)));
  }
  template <class E, class F>
  void every(F call) {
    every<E>(default_priority_, std::move(call));
  }
  template <class E, MemberFunction M, class H>
  void every(Priority priority, M member, H* self) {
    every<E>(priority, bound<const E&>(member, self));
  }
  template <class E, MemberFunction M, class H>
  void every(M member, H* self) {
    every<E>(default_priority_, member, self);
  }

  // Task<>(const E&), awaited before the next subscriber starts. The callable is kept as long as a
  // call of it is under way, so a lambda may be a coroutine and use its captures. One frame deep
  // and up to 1,020 bytes a frame, it allocates nothing.
  template <class E, class F>
  void awaited(Priority priority, F call) {
    add(awaited_subscriber<E>(hook_, priority, std::move(call)));
  }
  template <class E, class F>
  void awaited(F call) {
    awaited<E>(default_priority_, std::move(call));
  }
  template <class E, MemberFunction M, class H>
  void awaited(Priority priority, M member, H* self) {
    awaited<E>(priority, bound<const E&>(member, self));
  }
  template <class E, MemberFunction M, class H>
  void awaited(M member, H* self) {
    awaited<E>(default_priority_, member, self);
  }

  // void(E::Owned), called on the observer thread of the bus; see observer_queue.h for the options.
  // The priority places the copy of the event among the other subscribers, not the call. With
  // Overflow::kCoalesce, events that find the ring full are merged; `how` may say by which function
  // and which belong together (mailbox.h):
  //   on.background<Progressed>({.capacity = 1, .overflow = Overflow::kCoalesce}, draw,
  //                             {.merge = [](auto& waiting, auto&& newer) { ... }});
  template <class E, class F>
  void background(Priority priority, BackgroundOptions options, F call,
                  Coalescing<OwnedOf<E>> how = {}) {
    add(background_subscriber<E>(hook_, priority, options, std::move(call), std::move(how)));
  }
  template <class E, class F>
  void background(BackgroundOptions options, F call, Coalescing<OwnedOf<E>> how = {}) {
    background<E>(default_priority_, options, std::move(call), std::move(how));
  }
  template <class E, MemberFunction M, class H>
  void background(Priority priority, BackgroundOptions options, M member, H* self) {
    background<E>(priority, options, bound<OwnedOf<E>>(member, self));
  }
  template <class E, MemberFunction M, class H>
  void background(BackgroundOptions options, M member, H* self) {
    background<E>(default_priority_, options, member, self);
  }

  // The holds on everything subscribed so far; the caller keeps them as long as the hook is to be
  // called.
  [[nodiscard]] std::vector<Subscription> release() noexcept;

 private:
  template <class Argument, class M, class H>
  static auto bound(M member, H* self) {
    return [member, self](Argument argument) {
      return std::invoke(member, self, std::forward<Argument>(argument));
    };
  }
  void add(Subscriber subscriber);

  EventBus& bus_;
  std::string hook_;
  Priority default_priority_;
  std::shared_ptr<IsolatedHook> isolated_;
  std::vector<Subscription> held_;
};

}  // namespace millrace
