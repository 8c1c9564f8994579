#include "millrace/events/subscriptions.h"

#include "millrace/events/event_bus.h"

namespace millrace {

Subscriptions::Subscriptions(EventBus& bus, std::string hook, Priority default_priority)
    : bus_(bus), hook_(std::move(hook)), default_priority_(default_priority) {}

Subscriptions::~Subscriptions() = default;

void Subscriptions::add(Subscriber subscriber) {
  held_.push_back(bus_.subscribe(std::move(subscriber)));
}

std::vector<Subscription> Subscriptions::release() noexcept { return std::exchange(held_, {}); }

}  // namespace millrace
