// Subscription: the hold on one subscriber. Destroying or resetting it unsubscribes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace millrace {

class Channel;
struct ChannelEntry;

// Train context, and within the life of the bus, which refuses to be destroyed before it.
//
// Unsubscribing takes effect at once, during a dispatch too: the subscriber is not called again. A
// call that is under way is neither cancelled nor awaited, so what it uses must live until it ends:
// an awaited one with its publish, a background one at the latest with EventBus::close(). Events
// that still wait for a background subscriber are discarded.
class [[nodiscard]] Subscription {
 public:
  Subscription() = default;
  Subscription(Subscription&& other) noexcept
      : channel_(std::exchange(other.channel_, nullptr)), entry_(other.entry_) {}
  Subscription& operator=(Subscription&& other) noexcept {
    if (this != &other) {
      reset();
      channel_ = std::exchange(other.channel_, nullptr);
      entry_ = other.entry_;
    }
    return *this;
  }
  ~Subscription() { reset(); }

  void reset() noexcept;
  explicit operator bool() const noexcept { return channel_ != nullptr; }

  // Events lost by a background subscriber because its ring was full.
  std::uint64_t dropped() const;
  // Events that a background subscriber received as part of another one (Overflow::kCoalesce).
  std::uint64_t coalesced() const;

 private:
  friend class Channel;
  Subscription(Channel& channel, ChannelEntry& entry) : channel_(&channel), entry_(&entry) {}

  Channel* channel_ = nullptr;
  ChannelEntry* entry_ = nullptr;  // valid while channel_ is set
};

}  // namespace millrace
