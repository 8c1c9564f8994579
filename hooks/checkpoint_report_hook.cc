#include "millrace/hooks/checkpoint_report_hook.h"

#include <cstdio>

#include "millrace/runtime/engine/logger.h"
#include "millrace/runtime/engine/run_context.h"

namespace millrace {
namespace {

double milliseconds(Nanoseconds time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

}  // namespace

void CheckpointReportHook::subscribe(Subscriptions& on) {
  on.every<BeforeTrain>(
      [this](const BeforeTrain&) { started_ = std::chrono::steady_clock::now(); });
  on.every<AfterTrain>([this](const AfterTrain&) {
    training_seconds_ =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
  });
  on.every<CheckpointCommitted>([this](const CheckpointCommitted& e) { add(e.row); });
  on.every<AfterRun>([this](const AfterRun&) {
    if (!rows_.empty()) run_->log.info("Checkpoints of this run:\n" + table());
  });
}

void CheckpointReportHook::add(const CheckpointRow& row) {
  ++count_;
  stalled_ += row.stall_call + row.stall_gate;
  rows_.push_back(row);
  if (rows_.size() > max_rows_) rows_.pop_front();
}

double CheckpointReportHook::stall_share() const {
  return training_seconds_ > 0 ? milliseconds(stalled_) / 1000 / training_seconds_ : 0;
}

std::string CheckpointReportHook::table() const {
  char line[256];
  std::snprintf(line, sizeof line, "%-20s %8s %10s %12s %20s %20s\n", "checkpoint", "mode", "MiB",
                "durable ms", "stall in call ms", "stall at gate ms");
  std::string text = line;
  if (count_ > rows_.size()) {
    text += "... " + std::to_string(count_ - rows_.size()) + " earlier ones\n";
  }
  for (const CheckpointRow& row : rows_) {
    std::snprintf(line, sizeof line, "%-20s %8s %10.1f %12.1f %20.2f %20.2f\n", row.name.c_str(),
                  row.mode.c_str(), static_cast<double>(row.bytes) / (1 << 20),
                  milliseconds(row.times.durable - row.times.requested),
                  milliseconds(row.stall_call), milliseconds(row.stall_gate));
    text += line;
  }
  std::snprintf(
      line, sizeof line,
      "%llu checkpoints in %.1f s of training; saving took %.2f %% of the train thread's time",
      static_cast<unsigned long long>(count_), training_seconds_, 100 * stall_share());
  return text + line;
}

}  // namespace millrace
