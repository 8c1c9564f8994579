// When the next save is due: every so many steps, every so much time, and how far the stall budget
// stretches the former. CheckpointHook's; train context; no I/O.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "millrace/events/checkpoint_events.h"
#include "millrace/hooks/checkpoint_options.h"

namespace millrace {

class SavePacing {
 public:
  explicit SavePacing(const CheckpointHookOptions& options);

  // A train() begins at `step`, in finished epochs or iterations.
  void start(std::int64_t step, SteadyTime now);

  // Whether `step` is one of the interval's.
  bool due(std::int64_t step) const;
  // The same of the interval in force: that of the options, or wider for the stall budget.
  bool due_now(std::int64_t step) const;
  std::int64_t interval() const noexcept { return interval_ * widened_; }
  bool time_due(SteadyTime now) const;

  // A regular save was captured; without a step, when it is not one of the series.
  void captured(const std::string& save_id, std::optional<std::int64_t> step, SteadyTime now);
  // It is done, and `row` says what it took from the train thread: a sentence for the log when that
  // changes the interval.
  std::optional<std::string> committed(const CheckpointRow& row);
  void given_up(const std::string& save_id) { paces_.erase(save_id); }

 private:
  struct Pace {  // from one regular save to the next
    std::int64_t steps = 0;
    Nanoseconds time{0};
  };

  const std::int64_t interval_, begin_;
  const Nanoseconds every_;
  const double stall_budget_;
  const char* const unit_;
  SteadyTime last_save_;
  std::int64_t last_step_ = 0;
  std::int64_t widened_ = 1;
  std::map<std::string, Pace> paces_;  // by save id: captured, its outcome not known
};

}  // namespace millrace
