// LoggerHook: the lines people read. After every `interval` train iterations, every `interval`
// validation iterations, and after each validation.
#pragma once

#include <cstdint>
#include <string_view>

#include "millrace/runtime/engine/hook.h"

namespace millrace {

struct LoggerHookOptions {
  std::int64_t interval = 10;
  // Leaves out the line of an epoch's last iterations when they do not fill an interval, unless the
  // whole epoch is shorter than one.
  bool ignore_last = true;
  std::int64_t interval_exp_name = 1000;  // how often the run's name is repeated
};

class LoggerHook final : public Hook {
 public:
  // Throws ConfigError for an interval below 1.
  explicit LoggerHook(LoggerHookOptions options = {});
  std::string_view name() const override { return "LoggerHook"; }
  Priority priority() const override { return Priority::kBelowNormal; }
  void attach(RunContext& run) override { run_ = &run; }
  void subscribe(Subscriptions& on) override;

 private:
  void after_train_iter(const AfterTrainIter& event);
  void after_iter(LoopMode mode, const Progress& at, std::int64_t batch_idx, std::int64_t batches);

  LoggerHookOptions options_;
  RunContext* run_ = nullptr;
};

}  // namespace millrace
