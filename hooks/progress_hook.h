// ProgressHook: a bar on the terminal's last line, below the log. Nothing where the output is no
// terminal. It draws on the observer thread and can never delay the loop.
#pragma once

#include <chrono>
#include <mutex>
#include <string_view>

#include "millrace/runtime/engine/hook.h"

namespace millrace {

class ProgressHook final : public Hook {
 public:
  std::string_view name() const override { return "ProgressHook"; }
  Priority priority() const override { return Priority::kLowest; }
  void attach(RunContext& run) override { run_ = &run; }
  void subscribe(Subscriptions& on) override;

 private:
  void end(bool ended);
  void draw(const AfterTrainIter::Owned& event);

  RunContext* run_ = nullptr;
  std::mutex mutex_;  // the observer may still be drawing when the run ends
  bool ended_ = false;
  std::chrono::steady_clock::time_point drawn_;  // observer thread
};

}  // namespace millrace
