// Task<T>: a lazy coroutine on Asio's own awaitable. It starts when awaited (or spawned into a
// TaskScope) and runs on the executor of whoever awaits it.
//
// House rules, all of them learnt from GCC 12 (see CONTRIBUTING.md):
//  * no aggregate and no capturing-lambda temporary in an expression that contains co_await;
//  * spawned coroutines are named functions with by-value parameters;
//  * no LibTorch guard lives across a co_await.
#pragma once

#include <stdlib.h>  // before Asio, whose allocator depends on the library's macros

#include <asio/awaitable.hpp>

namespace millrace {

template <class T = void>
using Task = asio::awaitable<T>;

}  // namespace millrace
