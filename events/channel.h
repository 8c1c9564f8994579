// Channel: the subscribers of one event type, and the walk over them. The type itself is erased.
//
// Two arrays, both in the order of the calls: slots {function, target}, 16 bytes each, which the
// walk reads, and the entries with everything else. The walk has no branch per subscriber:
//  * subscribers up to the first awaited one run in the publisher's frame; the rest is a coroutine;
//  * unsubscribing points the slot at a function that does nothing.
// Arrays that a walk is using are pinned. Subscribing meanwhile makes new arrays and leaves the
// pinned ones alone, so it counts from the next publish on; they go, as does a subscriber's own
// memory, when the last walk over them has ended.
//
// Any number of walks may be under way, nested or suspended, each independent of the others: while
// an awaited subscriber is suspended, another task may publish the same event, and its walk starts
// and may end before the first goes on. Lives on the train context; no locks.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "millrace/events/event.h"
#include "millrace/events/subscriber.h"
#include "millrace/events/subscription.h"
#include "millrace/runtime/async/task.h"

namespace millrace {

class Observers;

struct ChannelEntry {
  explicit ChannelEntry(Subscriber s) : subscriber(std::move(s)) {}
  Subscriber subscriber;
  bool dead = false;
};

class Channel {
 public:
  // Publishes of one event that may be under way at a time. More are taken for an event that is
  // published, directly or in a circle, by its own subscribers: Error, naming the event.
  static constexpr int kDepthLimit = 32;

  Channel(EventKey event, Observers& observers);
  ~Channel();  // terminates the process when a Subscription or a walk is left: it would dangle
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  [[nodiscard]] Subscription add(Subscriber subscriber);
  std::size_t size() const noexcept;  // living subscribers

 private:
  struct Arrays {
    struct Slot {
      Subscriber::Run run;  // null: awaited
      void* target;
    };
    std::vector<Slot> slots;
    std::vector<std::shared_ptr<ChannelEntry>> entries;  // shared between generations of arrays
    std::size_t inline_end = 0;                          // index of the first awaited slot
    int pins = 0;
    bool stale = false;  // holds dead entries, or is not the current generation
  };

 public:
  // The pinned rest of a walk, from the first awaited subscriber on.
  class Rest {
   public:
    // Takes over the pin of a run_inline() that did not finish.
    Rest(Channel& channel, Arrays& arrays)
        : channel_(&channel), arrays_(&arrays), at_(arrays.inline_end) {}
    Rest(Rest&& other) noexcept
        : channel_(std::exchange(other.channel_, nullptr)),
          arrays_(other.arrays_),
          at_(other.at_) {}
    Rest& operator=(Rest&&) = delete;
    ~Rest() {
      if (channel_) channel_->unpin(*arrays_);
    }

    bool next(const void* event);     // runs up to the next awaited subscriber; false: that was all
    Task<> start(const void* event);  // the awaited subscriber that next() stopped at
    // While handling what a subscriber threw, that one or another of the rest: throws it wrapped,
    // or returns when its hook is isolated, and next() goes on with the one behind it.
    void fail();

   private:
    Channel* channel_;
    Arrays* arrays_;
    std::size_t at_;
    bool started_ = false;
  };

  // Starts a walk: runs the subscribers before the first awaited one. Null when that was all; else
  // the pinned arrays, for a Rest. A subscriber's exception ends the walk as a HookError, unless
  // its hook is isolated.
  Arrays* run_inline(const void* event);

 private:
  friend class Subscription;
  void remove(ChannelEntry& entry) noexcept;
  Arrays& unpinned_current();
  void unpin(Arrays& arrays) noexcept {
    --depth_;
    if (--arrays.pins == 0 && arrays.stale) reclaim(arrays);
  }
  void reclaim(Arrays& arrays) noexcept;
  void run_inline_after(Arrays& arrays, std::size_t failed, const void* event);
  // While handling what an inline subscriber threw: ends the walk, unless its hook is isolated.
  void caught_at(Arrays& arrays, std::size_t index);
  bool contained(const Arrays& arrays, std::size_t index) const noexcept;
  [[noreturn]] void fail_at(const Arrays& arrays, std::size_t index) const;
  [[noreturn]] void too_deep() const;

  EventKey event_;
  Observers& observers_;
  std::unique_ptr<Arrays> current_;
  std::vector<std::unique_ptr<Arrays>> outdated_;  // still pinned
  int depth_ = 0;
};

}  // namespace millrace
