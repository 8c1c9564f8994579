#include "millrace/hooks/param_scheduler_hook.h"

#include "millrace/runtime/engine/param_schedule.h"
#include "millrace/runtime/engine/run_context.h"
#include "millrace/runtime/engine/strategy.h"

namespace millrace {

void ParamSchedulerHook::subscribe(Subscriptions& on) {
  on.every<AfterTrainIter>([this](const AfterTrainIter&) { step(false); });
  on.every<AfterTrainEpoch>([this](const AfterTrainEpoch&) { step(true); });
}

void ParamSchedulerHook::step(bool by_epoch) {
  if (!run_->schedules.empty()) run_->schedules.step(by_epoch, run_->strategy.learning_rates());
}

}  // namespace millrace
