// The ring between a publisher and one background subscriber.
//
// The train context pushes owned copies and never waits; the observer thread of the bus takes them.
// Its memory is allocated when the subscriber is made.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "millrace/runtime/async/mailbox.h"

namespace millrace {

class Observers;

struct BackgroundOptions {
  std::size_t capacity = 64;
  Overflow overflow = Overflow::kDropOldest;
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

  // Any thread.
  virtual std::uint64_t dropped() const = 0;
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
  std::atomic<std::uint64_t> errors_{0};
};

template <class T, class F>
class TypedObserverQueue final : public ObserverQueue {
 public:
  TypedObserverQueue(const BackgroundOptions& options, F call)
      : mailbox_(options.capacity, options.overflow), call_(std::move(call)) {}

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

  std::uint64_t dropped() const override { return mailbox_.dropped(); }

 private:
  struct Item {
    std::uint64_t stamp;
    T value;
  };

  Mailbox<Item> mailbox_;
  F call_;
};

}  // namespace millrace
