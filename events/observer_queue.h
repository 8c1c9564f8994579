// The ring between a publisher and one background subscriber.
//
// The train context pushes owned copies and never waits; the observer thread of the bus takes them.
// Its memory is allocated when the subscriber is made: a push allocates nothing beyond what the
// owned copy itself needs, whatever the policy.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "millrace/runtime/async/mailbox.h"

namespace millrace {

class IsolatedHook;
class Observers;

struct BackgroundOptions {
  std::size_t capacity = 64;
  Overflow overflow = Overflow::kDropOldest;  // the policies: runtime/async/mailbox.h
};

class ObserverQueue {
 public:
  virtual ~ObserverQueue() = default;
  ObserverQueue(const ObserverQueue&) = delete;
  ObserverQueue& operator=(const ObserverQueue&) = delete;

  // Observer thread. The stamp of the oldest waiting event; empty when none waits.
  virtual std::optional<std::uint64_t> oldest() const = 0;
  // Observer thread. Takes the oldest event and calls the subscriber, whose exception passes.
  virtual void run_next() = 0;
  // Observer thread. Takes the oldest event and drops it: the hook was disabled.
  virtual void skip_next() = 0;

  // Before it is attached: the subscriber belongs to an isolated hook.
  void isolate(std::shared_ptr<IsolatedHook> hook) noexcept { isolated_ = std::move(hook); }

  // Any thread.
  virtual std::uint64_t dropped() const = 0;
  virtual std::uint64_t coalesced() const = 0;
  std::uint64_t delivered() const noexcept { return delivered_.load(std::memory_order_relaxed); }
  std::uint64_t errors() const noexcept { return errors_.load(std::memory_order_relaxed); }

 protected:
  ObserverQueue() = default;
  std::uint64_t next_stamp() noexcept;  // train context
  void announce();                      // train context, after a push

  std::atomic<std::uint64_t> delivered_{0};

 private:
  friend class Observers;
  Observers* observers_ = nullptr;  // set by attach, before the first push
  std::string event_;
  std::string hook_;
  std::shared_ptr<IsolatedHook> isolated_;  // null as a rule
  std::atomic<std::uint64_t> errors_{0};
};

template <class T, class F>
class TypedObserverQueue final : public ObserverQueue {
 public:
  TypedObserverQueue(const BackgroundOptions& options, F call, Coalescing<T> how)
      : mailbox_(options.capacity, options.overflow, of_items(options, std::move(how))),
        call_(std::move(call)) {}

  void push(T value) {
    mailbox_.push(Item{next_stamp(), std::move(value)});
    announce();
  }

  std::optional<std::uint64_t> oldest() const override {
    std::optional<std::uint64_t> stamp;
    mailbox_.peek([&stamp](const Item& item) { stamp = item.stamp; });
    return stamp;
  }

  void run_next() override {
    std::optional<Item> item = mailbox_.pop();
    if (!item) return;
    delivered_.fetch_add(1, std::memory_order_relaxed);
    call_(std::move(item->value));
  }

  void skip_next() override { mailbox_.pop(); }

  std::uint64_t dropped() const override { return mailbox_.dropped(); }
  std::uint64_t coalesced() const override { return mailbox_.coalesced(); }

 private:
  struct Item {
    std::uint64_t stamp;
    T value;
  };

  // A merged event keeps its stamp, and with it its turn among all background subscribers.
  static Coalescing<Item> of_items(const BackgroundOptions& options, Coalescing<T> how) {
    Coalescing<Item> items;
    if (how.same) {
      items.same = [same = how.same](const Item& waiting, const Item& newer) {
        return same(waiting.value, newer.value);
      };
    }
    if (how.merge || options.overflow == Overflow::kCoalesce) {
      items.merge = [how = std::move(how)](Item& waiting, Item&& newer) {
        merge_into(waiting.value, std::move(newer.value), how);
      };
    }
    return items;
  }

  Mailbox<Item> mailbox_;
  F call_;
};

}  // namespace millrace
