// CheckpointReportHook: one table at the end of the run: every checkpoint, its size, how long it
// took to become durable, and what it cost the training thread. Of a long run the table has the
// newest ones; the sums are of all.
//
//   checkpoint     MiB   durable ms   stall in call ms   stall at gate ms
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "millrace/events/checkpoint_events.h"
#include "millrace/runtime/engine/hook.h"

namespace millrace {

class CheckpointReportHook final : public Hook {
 public:
  explicit CheckpointReportHook(std::size_t max_rows = 1000) : max_rows_(max_rows) {}

  std::string_view name() const override { return "CheckpointReportHook"; }
  Priority priority() const override { return Priority::kLowest; }
  void attach(RunContext& run) override { run_ = &run; }
  void subscribe(Subscriptions& on) override;

  const std::deque<CheckpointRow>& rows() const noexcept { return rows_; }  // the newest
  // Seconds between BeforeTrain and AfterTrain.
  double training_seconds() const noexcept { return training_seconds_; }
  // Share of the training time that saves took from the train thread, 0..1.
  double stall_share() const;
  std::string table() const;

 private:
  void add(const CheckpointRow& row);

  std::size_t max_rows_;
  RunContext* run_ = nullptr;
  std::chrono::steady_clock::time_point started_;
  double training_seconds_ = 0;
  std::deque<CheckpointRow> rows_;
  std::uint64_t count_ = 0;  // of all checkpoints, as the next
  Nanoseconds stalled_{0};
};

}  // namespace millrace
