// The blocking way to run a runner, for programs. Services await Runner::train() instead.
#pragma once

#include "millrace/runtime/engine/runner.h"
#include "millrace/runtime/engine/stop_signals.h"

namespace millrace {

struct RunCommand {
  // SIGINT and SIGTERM finish the iteration, save, drain and return 0; a second signal ends the
  // process at once with 128 + its number. Handlers are removed before run() returns.
  bool handle_signals = true;
  // Made earlier by the program, so that start-up is covered too; null: run() makes its own.
  StopSignals* signals = nullptr;
};

// Trains on a thread of its own; the calling thread only waits for signals, so that a second one
// works during a long step. Returns the program's exit code: 0 after a complete or a stopped run, 2
// for a ConfigError, 1 for every other error, which is printed to standard error.
int run(Runner& runner, RunCommand command = {});
// Makes the runner too, so that wrong options are reported the same way.
int run(RunOptions options, Parts parts, RunCommand command = {});

// The same, with the error thrown instead of printed.
void run_or_throw(Runner& runner, RunCommand command = {});

// For main(): prints "error: <text>" with the causes inside it, and gives the exit code of run().
int report_error(const std::exception& error);

}  // namespace millrace
