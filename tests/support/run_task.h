// Runs one coroutine to its end on a fresh io_context of the calling thread.
#pragma once

#include <stdlib.h>  // before Asio, whose allocator depends on the library's macros

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <exception>

#include "millrace/runtime/async/task.h"

namespace millrace::test {

// For a task that needs the context's executor: make the context first. Rethrows the task's
// exception.
inline void run_task(asio::io_context& context, Task<> task) {
  std::exception_ptr error;
  asio::co_spawn(context, std::move(task), [&error](std::exception_ptr e) { error = e; });
  context.restart();
  context.run();
  if (error) std::rethrow_exception(error);
}

inline void run_task(Task<> task) {
  asio::io_context context(1);
  run_task(context, std::move(task));
}

}  // namespace millrace::test
