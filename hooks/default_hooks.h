// The reference's six default hooks, in its order and with its priorities.
#pragma once

#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/hooks/logger_hook.h"
#include "millrace/runtime/engine/hook.h"

namespace millrace {

struct DefaultHookOptions {
  LoggerHookOptions logger = {};
  CheckpointHookOptions checkpoint{.interval = 1};
};

// RuntimeInfoHook 10, IterTimerHook 50, DistSamplerSeedHook 50, LoggerHook 60, ParamSchedulerHook
// 70, CheckpointHook 90. Remove one by name, add others with add().
HookList default_hooks(DefaultHookOptions options = {});

}  // namespace millrace
