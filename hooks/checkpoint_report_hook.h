// CheckpointReportHook: one table at the end of the run: every checkpoint, its size, how long it
// took to become durable, and what it cost the training thread.
//
//   checkpoint     MiB   durable ms   stall in call ms   stall at gate ms
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/events/checkpoint_events.h"
#include "millrace/runtime/engine/hook.h"

namespace millrace {

class CheckpointReportHook final : public Hook {
 public:
  std::string_view name() const override { return "CheckpointReportHook"; }
  Priority priority() const override { return Priority::kLowest; }
  void attach(RunContext& run) override { run_ = &run; }
  void subscribe(Subscriptions& on) override;

  const std::vector<CheckpointRow>& rows() const noexcept { return rows_; }
  // Seconds between BeforeTrain and AfterTrain.
  double training_seconds() const noexcept { return training_seconds_; }
  // Share of the training time that saves took from the train thread, 0..1.
  double stall_share() const;
  std::string table() const;

 private:
  RunContext* run_ = nullptr;
  std::chrono::steady_clock::time_point started_;
  double training_seconds_ = 0;
  std::vector<CheckpointRow> rows_;
};

}  // namespace millrace
