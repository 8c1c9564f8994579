// The threads that copy snapshots: of normal priority (a low one would be waited for at the gate),
// parked while there is nothing to copy, joined by the destructor.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace millrace {

class Snapshot;  // runtime/staging/snapshot.h

class CopierThreads {
 public:
  explicit CopierThreads(unsigned count);
  // The snapshots handed over have been finished or discarded by then.
  ~CopierThreads();
  CopierThreads(const CopierThreads&) = delete;
  CopierThreads& operator=(const CopierThreads&) = delete;

  unsigned count() const noexcept { return static_cast<unsigned>(threads_.size()); }
  // Has up to `helpers` threads copy what is unclaimed, after what was ordered before.
  void start(std::shared_ptr<Snapshot> snapshot, unsigned helpers);
  // Nobody takes an order for this snapshot up any more.
  void recall(const Snapshot& snapshot);

 private:
  struct Order {
    std::shared_ptr<Snapshot> snapshot;
    unsigned helpers = 0;  // that it still lacks
  };
  void run(const std::stop_token& stop);

  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::deque<Order> orders_;  // guarded by mutex_
  std::vector<std::jthread> threads_;
};

}  // namespace millrace
