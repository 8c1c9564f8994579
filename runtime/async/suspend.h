// suspend(): the one place where a coroutine of ours leaves its executor and waits to be called
// back.
//
// The registrar runs after the coroutine is suspended and receives the Resumption that wakes it. A
// Resumption may be called from any thread, once; it posts (never dispatches) to the coroutine's
// own executor. Everything that waits is built on it: run_on, TaskScope::join, Inbox::wait,
// EventBus::close.
#pragma once

#include <functional>
#include <memory>

#include "millrace/runtime/async/task.h"

namespace millrace {

// Wakes one suspended coroutine. Dropping a Resumption uncalled abandons the coroutine: its frames
// are unwound on its executor, and nothing after the co_await runs.
class Resumption {
 public:
  struct Parked {
    virtual ~Parked() = default;
    virtual void resume() = 0;
  };

  Resumption() = default;
  explicit Resumption(std::unique_ptr<Parked> parked) : parked_(std::move(parked)) {}

  explicit operator bool() const noexcept { return parked_ != nullptr; }
  void operator()() { std::exchange(parked_, nullptr)->resume(); }

 private:
  std::unique_ptr<Parked> parked_;
};

// The executor must run one handler at a time, as the train context does: the registrar is still on
// the stack when another thread may already resume. The registrar must not throw.
Task<> suspend(std::function<void(Resumption)> registrar);

// Lets everything that waits on the executor run once, then goes on.
Task<> yield();

}  // namespace millrace
