#include "millrace/hooks/save_pacing.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "millrace/runtime/async/quantity.h"

namespace millrace {

SavePacing::SavePacing(const CheckpointHookOptions& options)
    : interval_(options.interval),
      begin_(options.save_begin),
      every_(options.save_every),
      stall_budget_(options.stall_budget),
      unit_(options.by_epoch ? " epochs" : " iterations") {}

void SavePacing::start(std::int64_t step, SteadyTime now) {
  last_step_ = step;
  last_save_ = now;
}

bool SavePacing::due(std::int64_t step) const {
  const std::int64_t since = step - begin_;
  return interval_ > 0 && since >= 0 && since % interval_ == 0;
}

bool SavePacing::due_now(std::int64_t step) const {
  return due(step) && (widened_ == 1 || step - last_step_ >= interval());
}

bool SavePacing::time_due(SteadyTime now) const {
  return every_.count() > 0 && now - last_save_ >= every_;
}

void SavePacing::captured(const std::string& save_id, std::optional<std::int64_t> step,
                          SteadyTime now) {
  Pace& pace = paces_[save_id];
  pace.steps = step ? *step - last_step_ : 0;
  pace.time = now - last_save_;
  if (step) last_step_ = *step;
  last_save_ = now;
}

std::optional<std::string> SavePacing::committed(const CheckpointRow& row) {
  const auto found = paces_.find(row.save_id);
  if (found == paces_.end()) return std::nullopt;
  const Pace pace = found->second;
  paces_.erase(found);
  if (stall_budget_ <= 0 || interval_ < 1 || pace.steps <= 0 || pace.time.count() <= 0) {
    return std::nullopt;
  }
  const Nanoseconds stall = row.stall_call + row.stall_gate;
  const double step = static_cast<double>(pace.time.count()) / static_cast<double>(pace.steps);
  const double share = static_cast<double>(stall.count()) / (step * static_cast<double>(interval_));
  const auto wanted = std::max<std::int64_t>(1, std::llround(std::ceil(share / stall_budget_)));
  if (wanted == widened_) return std::nullopt;
  widened_ = wanted;
  char percent[32];
  std::snprintf(percent, sizeof percent, "%.2f %%", 100 * share);
  return "Saving " + row.name + " took " + time_text(stall) + " of the train thread, " + percent +
         " of an interval: saving every " + std::to_string(interval()) + unit_ + " from now on";
}

}  // namespace millrace
