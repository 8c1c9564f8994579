// Observers: the one thread of a bus on which background subscribers run.
//
// It starts with the first background subscriber (and again with the first event after a close),
// takes the waiting events of all of them in the order of their publishing, and can never delay the
// train context beyond the copy into a ring. Owned by the bus; members are called on the train
// context.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "millrace/events/observer_queue.h"
#include "millrace/runtime/async/suspend.h"
#include "millrace/runtime/async/task.h"

namespace millrace {

class HookError;

// Called on the observer thread for each exception of an observer; must not throw.
using ObserverErrorLog = std::function<void(const HookError&)>;

struct ObserverStats {
  std::string event;
  std::string hook;
  std::uint64_t delivered = 0;  // calls made, failed ones too
  std::uint64_t dropped = 0;    // lost because the ring was full
  std::uint64_t coalesced = 0;  // merged into a waiting one
  std::uint64_t errors = 0;
};

class Observers {
 public:
  explicit Observers(ObserverErrorLog log);
  ~Observers();  // terminates the process when the thread still runs: close() was forgotten
  Observers(const Observers&) = delete;
  Observers& operator=(const Observers&) = delete;

  void attach(std::shared_ptr<ObserverQueue> queue, std::string_view event, std::string_view hook);
  void detach(const ObserverQueue& queue) noexcept;

  // For the queues: the number of the next event, and the news that it is in its ring.
  std::uint64_t next_stamp() noexcept { return ++stamp_; }
  void announce();

  // Waits until every ring is empty, ends the thread, and throws the first error since the last
  // close.
  Task<> close();

  std::uint64_t errors() const noexcept { return errors_.load(std::memory_order_relaxed); }
  std::vector<ObserverStats> stats() const;  // of the observers that are subscribed

 private:
  void start_if_needed();
  void run();
  bool any_waiting() const;
  std::shared_ptr<ObserverQueue> oldest() const;  // with the lock held
  void call(ObserverQueue& queue) noexcept;

  const ObserverErrorLog log_;
  std::thread thread_;        // train context only
  std::uint64_t stamp_ = 0;   // train context only
  bool closing_ = false;      // train context only
  mutable std::mutex mutex_;  // guards what follows; never held during a call
  std::condition_variable changed_;
  std::vector<std::shared_ptr<ObserverQueue>> queues_;
  Resumption closer_;  // set while close() waits
  std::exception_ptr first_error_;
  std::atomic<std::uint64_t> errors_{0};
};

}  // namespace millrace
