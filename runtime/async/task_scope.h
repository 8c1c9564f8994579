// TaskScope: the nursery every background coroutine belongs to. Nothing in Millrace is detached.
//
// Lives on one executor (the train context); all members are called there. The first task that
// throws requests stop for its siblings, and join() rethrows that error once all of them have
// ended.
#pragma once

#include <stdlib.h>  // before Asio, whose allocator depends on the library's macros

#include <asio/any_io_executor.hpp>
#include <cstddef>
#include <memory>
#include <stop_token>

#include "millrace/runtime/async/task.h"

namespace millrace {

class TaskScope {
 public:
  explicit TaskScope(asio::any_io_executor executor);
  // Terminates the process when tasks are still running: forgetting join() is a bug, and a
  // destructor that waits would block the executor the tasks need.
  ~TaskScope();
  TaskScope(const TaskScope&) = delete;
  TaskScope& operator=(const TaskScope&) = delete;

  // Starts `task` on the executor at its next turn. Asio cancellation does not reach it; it should
  // look at stop_token().
  void spawn(Task<> task);

  // Waits until no task is running, then rethrows the first error, once. The scope can be used
  // again: a stop that was requested ends with the join, and stop_token() then gives a fresh one.
  // One awaits it at a time.
  Task<> join();

  std::size_t active() const noexcept;
  std::stop_token stop_token() const noexcept;
  void request_stop() noexcept;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // a task's completion may run after the scope's owner was destroyed
};

}  // namespace millrace
