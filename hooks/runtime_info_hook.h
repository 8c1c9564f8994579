// RuntimeInfoHook: writes the run's facts into the message hub for everybody else.
//
// Info: seed, experiment_name, millrace_version, cfg (BeforeRun); loop_stage, epoch, iter,
// max_epochs, max_iters. Scalars: train/lr (the first group's) before each iteration, train/<name>
// for every output after it, val/<name> and test/<name> for metrics. Names and moments are the
// reference's.
//
// Outputs that are still on their way from a device are written when they have arrived, in the
// order of their iterations (MessageHub::expect); the last ones are there at AfterRun. A save waits
// for those of the steps before it, so that its history is that of a run on the host.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "millrace/runtime/engine/hook.h"

namespace millrace {

class HistoryBuffer;
class MessageHub;

class RuntimeInfoHook final : public Hook {
 public:
  std::string_view name() const override { return "RuntimeInfoHook"; }
  Priority priority() const override { return Priority::kVeryHigh; }
  void attach(RunContext& run) override;
  void subscribe(Subscriptions& on) override;

 private:
  void before_run(const BeforeRun& event);
  void before_train(const BeforeTrain& event);
  void before_train_iter(const BeforeTrainIter& event);
  void after_train_iter(const AfterTrainIter& event);
  void write_metrics(LoopMode mode, std::span<const MetricValue> metrics);
  void enter(LoopMode mode);
  void leave();

  RunContext* run_ = nullptr;
  // Looked up once: outputs keep their names and order from step to step.
  struct Output {
    std::string name;
    HistoryBuffer* history;
  };
  std::vector<Output> outputs_;
  HistoryBuffer* lr_ = nullptr;
  std::vector<std::string> stages_;  // of the loops entered, innermost last
};

}  // namespace millrace
