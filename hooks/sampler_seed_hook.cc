#include "millrace/hooks/sampler_seed_hook.h"

#include "millrace/runtime/engine/data_loader.h"
#include "millrace/runtime/engine/run_context.h"

namespace millrace {

void DistSamplerSeedHook::subscribe(Subscriptions& on) {
  on.every<BeforeTrainEpoch>([this](const BeforeTrainEpoch& event) {
    if (event.at.by_epoch) run_->train_loader->sampler().set_epoch(event.at.epoch);
  });
}

}  // namespace millrace
