// What publish() returns: an awaitable that is ready at once when every subscriber ran inline.
//
// `co_await bus.publish(event)` inside a Task then costs a test of one pointer: no coroutine frame,
// no allocation, no suspension. Task accepts only Asio's own awaitable in co_await, so this is a
// specialisation of that template for a tag of ours. It must be awaited (the compiler warns): until
// then, the subscribers from the first awaited one on have not run.
#pragma once

#include <stdlib.h>  // before Asio, whose allocator depends on the library's macros

#include <asio/any_io_executor.hpp>
#include <utility>

#include "millrace/runtime/async/task.h"

namespace millrace {
struct Published;
}

template <>
class [[nodiscard]] asio::awaitable<millrace::Published, asio::any_io_executor> {
 public:
  awaitable() noexcept = default;  // everything has run
  explicit awaitable(awaitable<void> rest) noexcept : rest_(std::move(rest)) {}

  bool await_ready() const noexcept { return !rest_.valid(); }
  template <class Coroutine>
  void await_suspend(Coroutine caller) {
    rest_.await_suspend(caller);
  }
  void await_resume() {
    if (rest_.valid()) rest_.await_resume();
  }

 private:
  awaitable<void> rest_;
};

namespace millrace {
using Publishing = asio::awaitable<Published>;
}
