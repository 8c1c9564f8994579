#include "millrace/runtime/engine/run.h"

#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <utility>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/async/train_context.h"

namespace millrace {
namespace {

// LibTorch appends its own call stack to what(), which is no message to a person.
std::string message(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find("\nframe #0: "));
}

void print_causes(const std::exception& error, std::string& text) {
  try {
    std::rethrow_if_nested(error);
  } catch (const std::exception& cause) {
    const std::string reason = message(cause);
    if (text.find(reason) == std::string::npos) text += "\n  because: " + reason;
    print_causes(cause, text);
  } catch (...) {
  }
}

bool is_config_error(const std::exception& error) {
  if (dynamic_cast<const ConfigError*>(&error) != nullptr) return true;
  try {
    std::rethrow_if_nested(error);
  } catch (const std::exception& cause) {
    return is_config_error(cause);
  } catch (...) {
  }
  return false;
}

}  // namespace

void run_or_throw(Runner& runner, RunCommand command) {
  if (!command.handle_signals) {
    TrainContext().run(runner.train());
    return;
  }
  std::optional<StopSignals> own;
  StopSignals* signals = command.signals != nullptr ? command.signals : &own.emplace();
  signals->listen([&runner](const char* name) { runner.request_stop(name); });
  std::exception_ptr error;
  TrainContext train;  // joined before `own` goes
  train.start(runner.train(), [&error, signals](std::exception_ptr outcome) {
    error = std::move(outcome);
    signals->leave();
  });
  signals->serve();
  if (error) std::rethrow_exception(error);
}

int run(Runner& runner, RunCommand command) {
  try {
    run_or_throw(runner, command);
    return 0;
  } catch (const std::exception& error) {
    return report_error(error);
  }
}

int run(RunOptions options, Parts parts, RunCommand command) {
  try {
    Runner runner(std::move(options), std::move(parts));
    run_or_throw(runner, command);
    return 0;
  } catch (const std::exception& error) {
    return report_error(error);
  }
}

int report_error(const std::exception& error) {
  std::string text = std::string("error: ") + message(error);
  print_causes(error, text);
  std::fprintf(stderr, "%s\n", text.c_str());
  return is_config_error(error) ? 2 : 1;
}

}  // namespace millrace
