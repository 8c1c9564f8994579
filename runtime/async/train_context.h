// The train context: the one thread on which loops, awaited hooks and every LibTorch call run, so
// that stream, device, grad mode and the OpenMP team never change.
//
// Either it starts a thread of its own, or the host gives an executor that runs one handler at a
// time on one thread. Owned by run() or by the host. Members may be called from any thread.
#pragma once

#include <stdlib.h>  // before Asio, whose allocator depends on the library's macros

#include <asio/any_io_executor.hpp>
#include <exception>
#include <functional>
#include <memory>
#include <string>

#include "millrace/runtime/async/task.h"

namespace millrace {

class TrainContext {
 public:
  explicit TrainContext(const std::string& thread_name = "mr-train");
  explicit TrainContext(asio::any_io_executor host);
  // Joins its own thread. Every task must have ended.
  ~TrainContext();
  TrainContext(const TrainContext&) = delete;
  TrainContext& operator=(const TrainContext&) = delete;

  asio::any_io_executor executor() const;

  // Runs the coroutine on the train thread and blocks the caller until it ends; its exception is
  // rethrown here. Asio cancellation is not forwarded. Calling it on the train thread would wait
  // for itself: an Error with a thread of its own, undetected with a host's executor.
  void run(Task<> task);

  // The same without blocking, for a caller that serves signals meanwhile. `done` gets the
  // exception or null, on the train thread, after the coroutine's frames are gone; it must not
  // throw.
  void start(Task<> task, std::function<void(std::exception_ptr)> done);

 private:
  struct Thread;
  std::unique_ptr<Thread> thread_;  // null with a host's executor
  asio::any_io_executor executor_;
};

}  // namespace millrace
