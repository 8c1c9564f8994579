// IterTimerHook: seconds per iteration and seconds waiting for data, and the time that is left.
//
// <mode>/data_time runs from this hook's last call to the batch being there, so it holds what later
// hooks of the iteration before took (a blocking save, say), as in the reference;
// <mode>/time over the whole iteration. Info "eta", in seconds: mean time since this run started
// times what is left, so a resumed run does not count work it did not do.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string_view>

#include "millrace/runtime/engine/hook.h"

namespace millrace {

class HistoryBuffer;

namespace pickle {
class Value;
}

class IterTimerHook final : public Hook {
 public:
  using Clock = std::chrono::steady_clock;

  std::string_view name() const override { return "IterTimerHook"; }
  void attach(RunContext& run) override;
  void subscribe(Subscriptions& on) override;

 private:
  struct Timer {  // of one mode
    HistoryBuffer* time = nullptr;
    HistoryBuffer* data_time = nullptr;
    Clock::time_point last;
    double total = 0;  // seconds since start()
    std::int64_t iterations = 0;
  };
  void start(LoopMode mode);
  void batch_ready(LoopMode mode);
  // Records the iteration; `left` is how many are to come.
  void finish(LoopMode mode, std::int64_t left);

  RunContext* run_ = nullptr;
  pickle::Value* eta_ = nullptr;
  std::array<Timer, 3> timers_;
};

}  // namespace millrace
