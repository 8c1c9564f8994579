// ParamSchedulerHook: steps the learning-rate schedules, those by iteration after each iteration
// and those by epoch after each epoch. It runs before CheckpointHook, so a checkpoint holds the
// rates of the next step.
#pragma once

#include <string_view>

#include "millrace/runtime/engine/hook.h"

namespace millrace {

class ParamSchedulerHook final : public Hook {
 public:
  std::string_view name() const override { return "ParamSchedulerHook"; }
  Priority priority() const override { return Priority::kLow; }
  void attach(RunContext& run) override { run_ = &run; }
  void subscribe(Subscriptions& on) override;

 private:
  void step(bool by_epoch);

  RunContext* run_ = nullptr;
};

}  // namespace millrace
