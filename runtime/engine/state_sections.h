// The sections of a checkpoint's state record that hold states: "hook/<name>" and "object/<name>".
// Train context.
#pragma once

#include <map>
#include <string>

#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/engine/hook.h"
#include "millrace/runtime/engine/run_context.h"

namespace millrace {

// Adds the states of hooks and objects, and what the run keeps for others, to `sections`, where the
// engine's own are already. An error ends the save and the stage it belongs to, except that of an
// isolated hook, which is counted; the checkpoint is then without its state.
void collect_states(const HookList& hooks, const RunStates& states,
                    std::map<std::string, std::string>& sections);

// Hands every state of the file to its hook or object. Throws CheckpointError, naming file and
// section, when one refuses it, an isolated hook too: nothing is lost yet. A state that nobody
// knows is kept (RunStates::kept) and logged, with the nearest name that is known. A section of
// another name, but for the engine's "rng", "hub" and "data", is logged and not kept: it would be
// older than everything around it.
void restore_states(const CheckpointFile& file, RunContext& run, const HookList& hooks);

}  // namespace millrace
