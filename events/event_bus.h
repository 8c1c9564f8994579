// EventBus: finds the channel of an event type and publishes on it.
//
//   co_await bus.publish(BeforeRun{progress});
//
// Subscribers run in the order (priority, subscription), smaller first, whatever their delivery:
//  * inline: a plain call in the publisher's frame;
//  * awaited: a coroutine, finished before the next subscriber starts;
//  * background: a copy into a bounded ring, which the bus's observer thread reads; never delays.
// With inline and background subscribers alone a publish needs no coroutine frame and allocates
// nothing. A subscriber's exception arrives at the co_await as a HookError, and later subscribers
// of that publish do not run; that of an isolated hook is counted, and they do (isolation.h).
//
// Publishing inside a subscriber is allowed. Subscribing during a publish counts from the next one,
// unsubscribing at once. Two tasks may publish the same event at a time; each walks on its own.
//
// Lives on the train context; it and everything below it are used there only (other threads go
// through the Inbox). Outlives its subscriptions and publishers.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "millrace/events/channel.h"
#include "millrace/events/event.h"
#include "millrace/events/observers.h"
#include "millrace/events/publishing.h"
#include "millrace/events/subscriber.h"
#include "millrace/events/subscription.h"
#include "millrace/runtime/async/task.h"

namespace millrace {

// The subscribers of E, looked up once: for a loop that publishes the same event again and again.
// Copyable; refers to its bus.
template <class E>
class Publisher {
 public:
  Publishing publish(const E& event) const {
    auto* arrays = channel_->run_inline(std::addressof(event));
    if (!arrays) return Publishing();
    return Publishing(run_rest(Channel::Rest(*channel_, *arrays), event));
  }

  // Whether a publish would reach anyone; for payloads that cost something to make.
  bool has_subscribers() const noexcept { return channel_->size() != 0; }

 private:
  friend class EventBus;
  explicit Publisher(Channel& channel) : channel_(&channel) {}

  // By value: the event may be a temporary of the publish expression.
  static Task<> run_rest(Channel::Rest rest, E event) {
    for (;;) {
      try {
        while (rest.next(std::addressof(event))) co_await rest.start(std::addressof(event));
        co_return;
      } catch (...) {
        rest.fail();
      }
    }
  }

  Channel* channel_;
};

class EventBus {
 public:
  // `log` is called on the observer thread for every exception of a background subscriber whose
  // hook is not isolated.
  explicit EventBus(ObserverErrorLog log = {});
  ~EventBus();
  EventBus(const EventBus&) = delete;
  EventBus& operator=(const EventBus&) = delete;

  template <class E>
  Publishing publish(const E& event) {
    Channel* channel = find(event_key<E>().index);
    if (!channel) return Publishing();
    return Publisher<E>(*channel).publish(event);
  }

  template <class E>
  Publisher<E> channel() {
    return Publisher<E>(find_or_make(event_key<E>()));
  }

  // Subscribes without a hook; hooks use Subscriptions.
  [[nodiscard]] Subscription subscribe(Subscriber subscriber);

  // Drains the background subscribers and ends their thread; throws the first HookError of one of
  // them since the last close, isolated hooks aside. Awaited before the bus is destroyed when it
  // ever had any. The bus stays usable: the next background event starts the thread again.
  Task<> close();

  std::uint64_t observer_errors() const noexcept;  // of isolated hooks too
  std::vector<ObserverStats> observer_stats() const;

 private:
  Channel* find(std::size_t index) const noexcept {
    return index < channels_.size() ? channels_[index].get() : nullptr;
  }
  Channel& find_or_make(EventKey event);

  Observers observers_;
  std::vector<std::unique_ptr<Channel>> channels_;  // by event index; null until used
};

}  // namespace millrace
