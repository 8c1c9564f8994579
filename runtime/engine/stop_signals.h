// StopSignals: SIGINT and SIGTERM of a program, from construction to destruction.
//
// A signal that comes before listen() waits for it. So a program that makes one first thing in
// main() ends in order also when it is stopped while it reads data or builds its model.
//
// One per process at a time, and never in a library: signals belong to the host.
#pragma once

#include <functional>
#include <memory>

namespace millrace {

class StopSignals {
 public:
  StopSignals();   // throws std::system_error when handlers cannot be set
  ~StopSignals();  // the default actions come back
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // The first signal calls `stop` with its name, the second ends the process at once with 128 + its
  // number. What came before is handled before listen() returns.
  void listen(std::function<void(const char* name)> stop);
  // Blocks until leave(); later signals are handled on this thread.
  void serve();
  // Any thread, once per serve(), before it or while it runs.
  void leave();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace
