#include "millrace/hooks/iter_timer_hook.h"

#include <string>

#include "millrace/runtime/engine/message_hub.h"
#include "millrace/runtime/engine/run_context.h"

namespace millrace {
namespace {

double seconds_between(IterTimerHook::Clock::time_point first,
                       IterTimerHook::Clock::time_point last) {
  return std::chrono::duration<double>(last - first).count();
}

}  // namespace

void IterTimerHook::attach(RunContext& run) { run_ = &run; }

void IterTimerHook::subscribe(Subscriptions& on) {
  on.every<BeforeTrain>([this](const BeforeTrain&) { start(LoopMode::kTrain); });
  on.every<BeforeTrainEpoch>([this](const BeforeTrainEpoch&) {
    timers_[static_cast<int>(LoopMode::kTrain)].last = Clock::now();
  });
  on.every<BeforeTrainIter>([this](const BeforeTrainIter&) { batch_ready(LoopMode::kTrain); });
  on.every<AfterTrainIter>([this](const AfterTrainIter& e) {
    finish(LoopMode::kTrain, e.at.max_iters - e.at.iter - 1);
  });
  on.every<BeforeValEpoch>([this](const BeforeValEpoch&) { start(LoopMode::kVal); });
  on.every<BeforeValIter>([this](const BeforeValIter&) { batch_ready(LoopMode::kVal); });
  on.every<AfterValIter>(
      [this](const AfterValIter& e) { finish(LoopMode::kVal, e.batches - e.batch_idx - 1); });
  on.every<BeforeTestEpoch>([this](const BeforeTestEpoch&) { start(LoopMode::kTest); });
  on.every<BeforeTestIter>([this](const BeforeTestIter&) { batch_ready(LoopMode::kTest); });
  on.every<AfterTestIter>(
      [this](const AfterTestIter& e) { finish(LoopMode::kTest, e.batches - e.batch_idx - 1); });
}

void IterTimerHook::start(LoopMode mode) {
  Timer& timer = timers_[static_cast<std::size_t>(mode)];
  const std::string prefix = std::string(loop_mode_name(mode)) + "/";
  timer.data_time = &run_->hub.scalar(prefix + "data_time");
  timer.time = &run_->hub.scalar(prefix + "time");
  eta_ = &run_->hub.info("eta");
  timer.last = Clock::now();
  timer.total = 0;
  timer.iterations = 0;
}

void IterTimerHook::batch_ready(LoopMode mode) {
  Timer& timer = timers_[static_cast<std::size_t>(mode)];
  timer.data_time->update(seconds_between(timer.last, Clock::now()));
}

void IterTimerHook::finish(LoopMode mode, std::int64_t left) {
  Timer& timer = timers_[static_cast<std::size_t>(mode)];
  const Clock::time_point end = Clock::now();
  const double spent = seconds_between(timer.last, end);
  timer.last = end;
  timer.time->update(spent);
  timer.total += spent;
  ++timer.iterations;
  *eta_ = timer.total / static_cast<double>(timer.iterations) * static_cast<double>(left);
}

}  // namespace millrace
