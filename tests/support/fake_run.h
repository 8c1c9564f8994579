// A small training run without LibTorch: options and parts that a test changes before it makes the
// runner, and hooks made of functions.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "millrace/runtime/async/train_context.h"
#include "millrace/runtime/engine/run_context.h"
#include "millrace/runtime/engine/runner.h"
#include "tests/support/fake_strategy.h"

namespace millrace::test {

// `samples` of two float32 features and an int64 label, which is 0 or 1.
std::shared_ptr<const Dataset> fake_dataset(std::int64_t samples = 12);

// Log lines, from any thread.
class LogLines {
 public:
  void add(std::string_view line);
  std::vector<std::string> all() const;
  // Those that contain `text`.
  std::vector<std::string> with(std::string_view text) const;
  // Train and validation lines without what the clock decides (eta, time, data_time).
  std::vector<std::string> numbers() const;

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> lines_;
};

// 12 samples in shuffled batches of 3, so 4 iterations an epoch; no hooks, seed 1. Set max_epochs
// or max_iters, then take the runner, once.
struct FakeRun {
  explicit FakeRun(const std::filesystem::path& work_dir, FakeStrategyOptions model = {});

  void validate();  // adds a validation loader of 2 batches and the metric accuracy
  Runner& runner();
  void train();  // on a train context of its own; again and again

  RunOptions options;
  Parts parts;
  FakeStrategy* strategy;  // of parts
  std::shared_ptr<LogLines> log = std::make_shared<LogLines>();

 private:
  std::unique_ptr<Runner> runner_;
};

// A hook made of a function.
class TestHook final : public Hook {
 public:
  using Subscribe = std::function<void(Subscriptions&, RunContext&)>;
  explicit TestHook(Subscribe subscribe, std::string name = "TestHook",
                    Priority priority = Priority::kLowest)
      : subscribe_(std::move(subscribe)), name_(std::move(name)), priority_(priority) {}

  std::string_view name() const override { return name_; }
  Priority priority() const override { return priority_; }
  void attach(RunContext& run) override { run_ = &run; }
  void subscribe(Subscriptions& on) override { subscribe_(on, *run_); }

 private:
  Subscribe subscribe_;
  std::string name_;
  Priority priority_;
  RunContext* run_ = nullptr;
};

// The common case: call(event, run) on every E, after all other hooks.
template <class E>
std::unique_ptr<Hook> on_event(std::function<void(const E&, RunContext&)> call,
                               std::string name = "TestHook") {
  return std::make_unique<TestHook>(
      [call = std::move(call)](Subscriptions& on, RunContext& run) {
        on.every<E>([call, &run](const E& event) { call(event, run); });
      },
      std::move(name));
}

}  // namespace millrace::test
