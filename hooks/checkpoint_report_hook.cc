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
  on.every<CheckpointCommitted>([this](const CheckpointCommitted& e) { rows_.push_back(e.row); });
  on.every<AfterRun>([this](const AfterRun&) {
    if (!rows_.empty()) run_->log.info("Checkpoints of this run:\n" + table());
  });
}

double CheckpointReportHook::stall_share() const {
  double stalled = 0;
  for (const CheckpointRow& row : rows_) stalled += milliseconds(row.stall_call + row.stall_gate);
  return training_seconds_ > 0 ? stalled / 1000 / training_seconds_ : 0;
}

std::string CheckpointReportHook::table() const {
  char line[256];
  std::snprintf(line, sizeof line, "%-20s %8s %10s %12s %20s %20s\n", "checkpoint", "mode", "MiB",
                "durable ms", "stall in call ms", "stall at gate ms");
  std::string text = line;
  for (const CheckpointRow& row : rows_) {
    std::snprintf(line, sizeof line, "%-20s %8s %10.1f %12.1f %20.2f %20.2f\n", row.name.c_str(),
                  row.mode.c_str(), static_cast<double>(row.bytes) / (1 << 20),
                  milliseconds(row.times.durable - row.times.requested),
                  milliseconds(row.stall_call), milliseconds(row.stall_gate));
    text += line;
  }
  std::snprintf(
      line, sizeof line,
      "%zu checkpoints in %.1f s of training; saving took %.2f %% of the train thread's time",
      rows_.size(), training_seconds_, 100 * stall_share());
  return text + line;
}

}  // namespace millrace
