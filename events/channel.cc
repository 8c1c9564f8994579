#include "millrace/events/channel.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>

#include "millrace/events/hook_error.h"
#include "millrace/events/isolation.h"
#include "millrace/events/observers.h"

namespace millrace {
namespace {

void do_nothing(void*, const void*) {}

template <class Slots>
std::size_t first_awaited(const Slots& slots) {
  return std::find_if(slots.begin(), slots.end(), [](const auto& s) { return !s.run; }) -
         slots.begin();
}

}  // namespace

Channel::Channel(EventKey event, Observers& observers)
    : event_(event), observers_(observers), current_(std::make_unique<Arrays>()) {}

Channel::~Channel() {
  if (size() == 0 && depth_ == 0) return;
  const std::string hook = size() == 0 ? "" : current_->entries.front()->subscriber.hook;
  std::fprintf(stderr, "millrace: the event bus is destroyed before %s %s%s\n",
               hook.empty() ? "a publish ended of" : "a subscription to",
               std::string(event_.name).c_str(), hook.empty() ? "" : (" by " + hook).c_str());
  std::terminate();
}

std::size_t Channel::size() const noexcept {
  return std::count_if(current_->entries.begin(), current_->entries.end(),
                       [](const auto& entry) { return !entry->dead; });
}

Subscription Channel::add(Subscriber subscriber) {
  auto entry = std::make_shared<ChannelEntry>(std::move(subscriber));
  const Subscriber& added = entry->subscriber;
  Arrays& arrays = unpinned_current();
  const auto place = std::upper_bound(
      arrays.entries.begin(), arrays.entries.end(), added.priority,
      [](Priority p, const auto& other) { return p < other->subscriber.priority; });
  const auto index = place - arrays.entries.begin();
  arrays.slots.reserve(arrays.slots.size() + 1);
  arrays.entries.insert(place, entry);
  arrays.slots.insert(arrays.slots.begin() + index, {added.run, added.target.get()});
  arrays.inline_end = first_awaited(arrays.slots);

  Subscription subscription(*this, *entry);
  if (added.queue) observers_.attach(added.queue, event_.name, added.hook);
  return subscription;
}

Channel::Arrays& Channel::unpinned_current() {
  if (current_->pins == 0) return *current_;
  auto copy = std::make_unique<Arrays>();
  for (std::size_t i = 0; i < current_->slots.size(); ++i) {
    if (current_->entries[i]->dead) continue;
    copy->slots.push_back(current_->slots[i]);
    copy->entries.push_back(current_->entries[i]);
  }
  copy->inline_end = first_awaited(copy->slots);
  outdated_.push_back(std::move(current_));
  outdated_.back()->stale = true;
  current_ = std::move(copy);
  return *current_;
}

void Channel::remove(ChannelEntry& entry) noexcept {
  if (entry.subscriber.queue) observers_.detach(*entry.subscriber.queue);
  entry.dead = true;
  auto silence = [&entry](Arrays& arrays) {
    for (std::size_t i = 0; i < arrays.entries.size(); ++i) {
      if (arrays.entries[i].get() != &entry) continue;
      arrays.slots[i] = {do_nothing, nullptr};
      arrays.stale = true;
    }
  };
  for (const auto& arrays : outdated_) silence(*arrays);
  silence(*current_);
  if (current_->pins == 0) reclaim(*current_);
}

// Destroying a callable may unsubscribe others and come back here: it goes last, when all is in
// order.
void Channel::reclaim(Arrays& arrays) noexcept {
  if (&arrays != current_.get()) {
    const auto place = std::find_if(outdated_.begin(), outdated_.end(),
                                    [&arrays](const auto& a) { return a.get() == &arrays; });
    const std::unique_ptr<Arrays> gone = std::move(*place);
    outdated_.erase(place);
    return;
  }
  std::vector<std::shared_ptr<ChannelEntry>> gone;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < arrays.entries.size(); ++i) {
    if (arrays.entries[i]->dead) {
      gone.push_back(std::move(arrays.entries[i]));
    } else {
      arrays.slots[kept] = arrays.slots[i];
      if (kept != i) arrays.entries[kept] = std::move(arrays.entries[i]);
      ++kept;
    }
  }
  arrays.slots.resize(kept);
  arrays.entries.resize(kept);
  arrays.inline_end = first_awaited(arrays.slots);
  arrays.stale = false;
}

Channel::Arrays* Channel::run_inline(const void* event) {
  if (depth_ >= kDepthLimit) too_deep();
  Arrays& arrays = *current_;
  ++depth_;
  ++arrays.pins;
  // The arrays are pinned: neither moves, and only the contents of a slot may change under the
  // walk.
  const Arrays::Slot* slot = arrays.slots.data();
  const Arrays::Slot* const end = slot + arrays.inline_end;
  try {
    for (; slot != end; ++slot) slot->run(slot->target, event);
  } catch (...) {
    caught_at(arrays, slot - arrays.slots.data());
  }
  if (slot != end) run_inline_after(arrays, slot - arrays.slots.data(), event);
  if (arrays.inline_end != arrays.slots.size()) return &arrays;
  unpin(arrays);
  return nullptr;
}

// Behind a failure that was contained. Apart from the walk above, which stays as short as it is.
void Channel::run_inline_after(Arrays& arrays, std::size_t failed, const void* event) {
  for (std::size_t i = failed + 1; i < arrays.inline_end; ++i) {
    const Arrays::Slot& slot = arrays.slots[i];
    try {
      slot.run(slot.target, event);
    } catch (...) {
      caught_at(arrays, i);
    }
  }
}

bool Channel::Rest::next(const void* event) {
  if (started_) ++at_;
  started_ = false;
  for (; at_ < arrays_->slots.size(); ++at_) {
    const Arrays::Slot& slot = arrays_->slots[at_];
    if (!slot.run) return true;
    slot.run(slot.target, event);
  }
  return false;
}

Task<> Channel::Rest::start(const void* event) {
  started_ = true;
  return arrays_->entries[at_]->subscriber.start(arrays_->slots[at_].target, event);
}

void Channel::Rest::fail() {
  if (!channel_->contained(*arrays_, at_)) channel_->fail_at(*arrays_, at_);
  started_ = true;  // next() goes on behind it
}

void Channel::caught_at(Arrays& arrays, std::size_t index) {
  if (contained(arrays, index)) return;
  const Rest pinned(*this, arrays);  // unpins
  fail_at(arrays, index);
}

bool Channel::contained(const Arrays& arrays, std::size_t index) const noexcept {
  const std::shared_ptr<IsolatedHook>& hook = arrays.entries[index]->subscriber.isolated;
  return hook && hook->contains(event_.name);
}

void Channel::fail_at(const Arrays& arrays, std::size_t index) const {
  HookError::throw_wrapped(event_.name, arrays.entries[index]->subscriber.hook);
}

void Channel::too_deep() const {
  throw Error(std::string(event_.name) + ": " + std::to_string(kDepthLimit) +
              " publishes are under way; is it published by its own subscribers?");
}

void Subscription::reset() noexcept {
  if (channel_) std::exchange(channel_, nullptr)->remove(*entry_);
}

std::uint64_t Subscription::dropped() const {
  return channel_ && entry_->subscriber.queue ? entry_->subscriber.queue->dropped() : 0;
}

std::uint64_t Subscription::coalesced() const {
  return channel_ && entry_->subscriber.queue ? entry_->subscriber.queue->coalesced() : 0;
}

}  // namespace millrace
