// Mailbox<T>: a bounded ring from any thread to one consumer, for work that may be lost but must
// never make the sender wait. Its memory is allocated once, by the constructor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "millrace/runtime/async/error.h"

namespace millrace {

// Which value is lost when one comes to a full mailbox.
enum class Overflow : std::uint8_t { kDropOldest, kDropNewest };

template <class T>
class Mailbox {
 public:
  // Throws ConfigError when `capacity` is 0.
  Mailbox(std::size_t capacity, Overflow overflow)
      : overflow_(overflow), ring_(checked(capacity)) {}

  // Any thread. False when a value was lost for it: this one or the oldest, by the policy.
  bool push(T value) {
    const std::lock_guard lock(mutex_);
    const bool full = size_ == ring_.size();
    if (full) {
      ++dropped_;
      if (overflow_ == Overflow::kDropNewest) return false;
      first_ = next(first_);
      --size_;
    }
    ring_[(first_ + size_) % ring_.size()].emplace(std::move(value));
    ++size_;
    return !full;
  }

  // The consumer. The oldest value, or nothing.
  std::optional<T> pop() {
    const std::lock_guard lock(mutex_);
    std::optional<T> value;
    if (size_ == 0) return value;
    value = std::exchange(ring_[first_], std::nullopt);
    first_ = next(first_);
    --size_;
    return value;
  }

  // Looks at the oldest value in place, under the lock: `look(const T&)`. False when there is none.
  template <class Look>
  bool peek(Look look) const {
    const std::lock_guard lock(mutex_);
    if (size_ == 0) return false;
    look(*ring_[first_]);
    return true;
  }

  std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return size_;
  }
  std::size_t capacity() const noexcept { return ring_.size(); }
  // Values lost so far, by either policy.
  std::uint64_t dropped() const {
    const std::lock_guard lock(mutex_);
    return dropped_;
  }

 private:
  static std::size_t checked(std::size_t capacity) {
    if (capacity == 0) throw ConfigError("mailbox.capacity", "must be at least 1");
    return capacity;
  }
  std::size_t next(std::size_t index) const noexcept { return (index + 1) % ring_.size(); }

  const Overflow overflow_;
  mutable std::mutex mutex_;
  std::vector<std::optional<T>> ring_;
  std::size_t first_ = 0;
  std::size_t size_ = 0;
  std::uint64_t dropped_ = 0;
};

}  // namespace millrace
