#include "millrace/events/subscriptions.h"

#include "millrace/events/event_bus.h"
#include "millrace/events/isolation.h"

namespace millrace {

Subscriptions::Subscriptions(EventBus& bus, std::string hook, Priority default_priority,
                             std::shared_ptr<IsolatedHook> isolated)
    : bus_(bus),
      hook_(std::move(hook)),
      default_priority_(default_priority),
      isolated_(std::move(isolated)) {}

Subscriptions::~Subscriptions() = default;

void Subscriptions::add(Subscriber subscriber) {
  if (isolated_) subscriber = isolated(std::move(subscriber), isolated_);
  held_.push_back(bus_.subscribe(std::move(subscriber)));
}

std::vector<Subscription> Subscriptions::release() noexcept { return std::exchange(held_, {}); }

}  // namespace millrace
