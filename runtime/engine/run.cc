#include "millrace/runtime/engine/run.h"

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/signal_set.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/async/train_context.h"

namespace millrace {
namespace {

const char* signal_name(int number) { return number == SIGINT ? "SIGINT" : "SIGTERM"; }

// The first signal asks for a stop, the second ends the process.
class SignalStop {
 public:
  SignalStop(asio::io_context& context, Runner& runner)
      : signals_(context, SIGINT, SIGTERM), runner_(runner) {
    wait();
  }
  void cancel() { signals_.cancel(); }

 private:
  void wait() {
    signals_.async_wait([this](const std::error_code& error, int number) {
      if (error) return;
      if (stopping_) std::_Exit(128 + number);
      stopping_ = true;
      runner_.request_stop(signal_name(number));
      wait();
    });
  }

  asio::signal_set signals_;
  Runner& runner_;
  bool stopping_ = false;
};

void print_causes(const std::exception& error, std::string& text) {
  try {
    std::rethrow_if_nested(error);
  } catch (const std::exception& cause) {
    if (text.find(cause.what()) == std::string::npos)
      text += std::string("\n  because: ") + cause.what();
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
  asio::io_context main;
  auto work = asio::make_work_guard(main);
  std::optional<SignalStop> signals;
  if (command.handle_signals) signals.emplace(main, runner);

  std::exception_ptr error;
  TrainContext train;
  train.start(runner.train(), [&](std::exception_ptr outcome) {
    error = outcome;
    asio::post(main, [&] {
      if (signals) signals->cancel();
      work.reset();
    });
  });
  main.run();
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
  std::string text = std::string("error: ") + error.what();
  print_causes(error, text);
  std::fprintf(stderr, "%s\n", text.c_str());
  return is_config_error(error) ? 2 : 1;
}

}  // namespace millrace
