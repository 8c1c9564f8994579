// Continuing a run: finding a checkpoint, and putting everything back where it was.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "millrace/runtime/async/task.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/engine/hook.h"
#include "millrace/runtime/engine/run_context.h"

namespace millrace {

class CheckpointStore;

struct FoundCheckpoint {
  std::optional<CheckpointFile> file;
  std::vector<std::string> notes;  // which files were skipped, and why
};

// I/O thread. The newest valid checkpoint of all stores: the highest generation, not the highest
// step. It is verified while it is loaded; with several stores two files are in memory for a while.
// Where they have none, the file that last_checkpoint in `work_dir` names, which is elsewhere
// when it was saved under another out_dir.
FoundCheckpoint find_newest(const std::vector<CheckpointStore*>& stores,
                            const std::filesystem::path& work_dir);

// Train context. The whole state: counters, weights, optimizer, schedules, hub, random generators,
// data position and hook states. Strict: a file that does not fit is a CheckpointError, which ends
// the run before training. What the file does not hold is logged.
Task<> resume_from(CheckpointFile file, RunContext& run, Progress& at, const HookList& hooks);

// Train context. The weights only, as far as names and shapes agree; differences are warnings, but
// a file of which nothing fits is a CheckpointError.
Task<> load_weights(CheckpointFile file, RunContext& run);

}  // namespace millrace
