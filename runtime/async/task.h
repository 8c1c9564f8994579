// Task<T>: a lazy coroutine on Asio's own awaitable. It starts when awaited (or spawned into a
// TaskScope) and runs on the executor of whoever awaits it.
//
// House rules (CONTRIBUTING.md, "Coroutines", has all of them and why):
//  * GCC 12 miscompiles, tests/lint/co_await_rule.py checks: no aggregate and no capturing-lambda
//    temporary in an expression that contains co_await, no await in a braced initialiser, and no
//    conditional operator in such an expression;
//  * the language: spawned coroutines are named functions with by-value parameters;
//  * LibTorch's state belongs to the thread: none of its guards lives across a co_await.
#pragma once

#include <stdlib.h>  // before Asio, whose allocator depends on the library's macros

#include <asio/awaitable.hpp>

namespace millrace {

template <class T = void>
using Task = asio::awaitable<T>;

}  // namespace millrace
