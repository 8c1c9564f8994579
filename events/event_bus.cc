#include "millrace/events/event_bus.h"

#include <atomic>

namespace millrace {

std::size_t detail::next_event_index() noexcept {
  static std::atomic<std::size_t> next{0};
  return next.fetch_add(1, std::memory_order_relaxed);
}

EventBus::EventBus(ObserverErrorLog log) : observers_(std::move(log)) {}
EventBus::~EventBus() = default;

Channel& EventBus::find_or_make(EventKey event) {
  if (event.index >= channels_.size()) channels_.resize(event.index + 1);
  std::unique_ptr<Channel>& channel = channels_[event.index];
  if (!channel) channel = std::make_unique<Channel>(event, observers_);
  return *channel;
}

Subscription EventBus::subscribe(Subscriber subscriber) {
  Channel& channel = find_or_make(subscriber.event);
  return channel.add(std::move(subscriber));
}

Task<> EventBus::close() { return observers_.close(); }
std::uint64_t EventBus::observer_errors() const noexcept { return observers_.errors(); }
std::vector<ObserverStats> EventBus::observer_stats() const { return observers_.stats(); }

}  // namespace millrace
