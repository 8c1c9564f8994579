// The inbox: the one door through which other threads reach the train context.
//
// I/O completions, stop requests and on-demand saves are posted here from any thread. The loop
// calls deliver() once per iteration, between AfterTrainIter and the next BeforeTrainIter, and
// there alone they become events: hooks keep their order, and a loop whose hooks are all inline
// starves nobody.
#pragma once

#include <functional>
#include <memory>

#include "millrace/runtime/async/task.h"

namespace millrace {

class Inbox {
 public:
  // Runs on the train context when delivered; may publish events and await.
  using Notice = std::function<Task<>()>;

  Inbox();
  ~Inbox();  // undelivered notices are dropped
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;

  // Any thread. Wakes wait(). Notices are delivered in the order they were posted.
  void post(Notice notice);

  // Train context. Yields the executor once, then runs every waiting notice, including those posted
  // meanwhile. With nothing waiting it costs one yield and no allocation. An exception of a notice
  // propagates; the remaining notices stay queued for the next call.
  Task<> deliver();

  // Train context. Suspends until a notice is waiting (returns at once when one is).
  Task<> wait();

  bool empty() const noexcept;  // any thread; a hint

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace
