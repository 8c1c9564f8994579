// Mailbox<T>: a bounded ring from any thread to one consumer, for work that may be lost but must
// never make the sender wait. Its memory is allocated once, by the constructor.
//
// Coalescing. A value that comes to a full mailbox is merged into the newest waiting one instead of
// being lost:
//   * by Coalescing::merge, where one is given;
//   * else by `void T::merge(T&& newer)`, where the type has it;
//   * else it takes the waiting one's place: the latest wins.
// The merged value keeps the place in the order that the waiting one had, so values still arrive in
// order, and nobody starves by being merged again and again. With Coalescing::same, values merge by
// kind: one joins the newest waiting one of its kind at once, full or not; when the ring is full
// and none of its kind waits, the oldest is dropped. Each merge is counted in coalesced(), each
// loss in dropped(), so that pushes = pops + waiting + dropped + coalesced.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "millrace/runtime/async/error.h"

namespace millrace {

// What becomes of a value that comes to a full mailbox.
enum class Overflow : std::uint8_t {
  kDropOldest,  // it is kept and the oldest is lost
  kDropNewest,  // it is lost
  kCoalesce,    // it is merged into a waiting one
};

// How values are merged. Both functions run in push(), under the mailbox's lock: short, and without
// using the mailbox. What `merge` throws comes out of push(), with the waiting value as `merge`
// left it and the newer one lost without a count.
template <class T>
struct Coalescing {
  std::function<void(T& waiting, T&& newer)> merge = {};
  std::function<bool(const T& waiting, const T& newer)> same = {};
};

template <class T>
concept Mergeable = requires(T& waiting, T&& newer) {
  { waiting.merge(std::move(newer)) } -> std::same_as<void>;
};

template <class T>
void merge_into(T& waiting, T&& newer, const Coalescing<T>& how) {
  if (how.merge) {
    how.merge(waiting, std::move(newer));
  } else if constexpr (Mergeable<T>) {
    waiting.merge(std::move(newer));
  } else {
    waiting = std::move(newer);
  }
}

template <class T>
class Mailbox {
 public:
  // Throws ConfigError when `capacity` is 0, or `how` is given without Overflow::kCoalesce.
  Mailbox(std::size_t capacity, Overflow overflow, Coalescing<T> how = {})
      : overflow_(overflow), how_(std::move(how)), ring_(checked(capacity)) {
    if ((how_.merge || how_.same) && overflow != Overflow::kCoalesce) {
      throw ConfigError("mailbox.overflow", "must be kCoalesce for a merge function to be used");
    }
  }

  // Any thread. True when the value waits and nothing was lost or merged for it.
  bool push(T value) {
    const std::lock_guard lock(mutex_);
    const bool full = size_ == ring_.size();
    if (overflow_ == Overflow::kCoalesce && coalesce(full, value)) return false;
    if (full) {
      ++dropped_;
      if (overflow_ == Overflow::kDropNewest) return false;
      first_ = next(first_);
      --size_;
    }
    at(size_).emplace(std::move(value));
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
  // Values lost so far, by any policy.
  std::uint64_t dropped() const {
    const std::lock_guard lock(mutex_);
    return dropped_;
  }
  // Values merged into waiting ones so far.
  std::uint64_t coalesced() const {
    const std::lock_guard lock(mutex_);
    return coalesced_;
  }

 private:
  static std::size_t checked(std::size_t capacity) {
    if (capacity == 0) throw ConfigError("mailbox.capacity", "must be at least 1");
    return capacity;
  }
  std::size_t next(std::size_t index) const noexcept { return (index + 1) % ring_.size(); }
  // The i-th oldest place.
  std::optional<T>& at(std::size_t i) noexcept { return ring_[(first_ + i) % ring_.size()]; }

  // With the lock held. False when `value` joins none: it is left as it was.
  bool coalesce(bool full, T& value) {
    if (how_.same) {
      for (std::size_t i = size_; i > 0; --i) {
        T& waiting = *at(i - 1);
        if (how_.same(waiting, value)) return merge(waiting, value);
      }
      return false;
    }
    return full && merge(*at(size_ - 1), value);
  }
  bool merge(T& waiting, T& value) {
    merge_into(waiting, std::move(value), how_);
    ++coalesced_;
    return true;
  }

  const Overflow overflow_;
  const Coalescing<T> how_;
  mutable std::mutex mutex_;
  std::vector<std::optional<T>> ring_;
  std::size_t first_ = 0;
  std::size_t size_ = 0;
  std::uint64_t dropped_ = 0;
  std::uint64_t coalesced_ = 0;
};

}  // namespace millrace
