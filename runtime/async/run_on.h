// run_on(): the only way to leave the train context and to come back to it.
//
//   const Digest digest = co_await run_on(io.executor(), hash_file);
//
// The function runs on the pool; the coroutine resumes on its own executor, by a post, with the
// result or the exception. Asio cancellation does not cross: once posted, the function runs to its
// end, so long work takes a std::stop_token of its own.
#pragma once

#include <stdlib.h>  // before Asio, whose allocator depends on the library's macros

#include <asio/any_io_executor.hpp>
#include <exception>
#include <functional>
#include <optional>
#include <type_traits>
#include <utility>

#include "millrace/runtime/async/task.h"

namespace millrace {

// The type-erased core: runs `job`, which must not throw, on the pool and resumes after it.
Task<> post_and_wait(asio::any_io_executor pool, std::function<void()> job);

// `fn` is moved into the coroutine and destroyed on the awaiting executor. As everywhere, a lambda
// with captures is given a name first and moved in; see task.h.
template <class F>
Task<std::invoke_result_t<F&>> run_on(asio::any_io_executor pool, F fn) {
  using R = std::invoke_result_t<F&>;
  std::exception_ptr error;
  if constexpr (std::is_void_v<R>) {
    auto job = [&fn, &error] {
      try {
        fn();
      } catch (...) {
        error = std::current_exception();
      }
    };
    co_await post_and_wait(std::move(pool), job);
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
  } else {
    std::optional<R> result;
    auto job = [&fn, &error, &result] {
      try {
        result.emplace(fn());
      } catch (...) {
        error = std::current_exception();
      }
    };
    co_await post_and_wait(std::move(pool), job);
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
    co_return std::move(*result);
  }
}

}  // namespace millrace
