#include "millrace/hooks/default_hooks.h"

#include <memory>
#include <utility>

#include "millrace/hooks/iter_timer_hook.h"
#include "millrace/hooks/param_scheduler_hook.h"
#include "millrace/hooks/runtime_info_hook.h"
#include "millrace/hooks/sampler_seed_hook.h"

namespace millrace {

HookList default_hooks(DefaultHookOptions options) {
  HookList hooks;
  hooks.add(std::make_unique<RuntimeInfoHook>());
  hooks.add(std::make_unique<IterTimerHook>());
  hooks.add(std::make_unique<DistSamplerSeedHook>());
  hooks.add(std::make_unique<LoggerHook>(options.logger));
  hooks.add(std::make_unique<ParamSchedulerHook>());
  hooks.add(std::make_unique<CheckpointHook>(std::move(options.checkpoint)));
  return hooks;
}

}  // namespace millrace
