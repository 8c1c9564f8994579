#include "millrace/runtime/engine/state_sections.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "millrace/events/hook_error.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/logger.h"
#include "millrace/runtime/engine/run_states.h"

namespace millrace {
namespace {

constexpr std::string_view kHook = "hook/";
constexpr std::string_view kObject = "object/";
// What the engine restores itself.
constexpr std::array<std::string_view, 3> kEngine{"rng", "hub", "data"};

std::string saved(const HookList::Entry& entry) {
  try {
    return entry.hook->save_state();
  } catch (...) {
    if (entry.isolated && entry.isolated->contains("save_state")) return {};
    HookError::throw_wrapped("save_state", std::string(entry.hook->name()));
  }
}

std::string saved(const RunStates::Entry& entry) {
  try {
    return entry.state->save();
  } catch (const std::exception& error) {
    throw Error("the state of the object '" + entry.name + "' cannot be saved: " + error.what());
  }
}

template <class Load>
void load_section(const CheckpointFile& file, const std::string& section, Load load) {
  try {
    load();
  } catch (const std::exception& error) {
    throw CheckpointError(file.path(),
                          "its section '" + section + "' cannot be read: " + error.what());
  }
}

void log_kept(std::string_view kind, const std::string& name, const std::vector<std::string>& known,
              RunContext& run) {
  const std::string nearest = nearest_name(name, known);
  run.log.warn("The checkpoint holds a state of the " + std::string(kind) + " '" + name +
               "', which this run lacks" + (nearest.empty() ? "" : " (it has '" + nearest + "')") +
               ": it is kept in this run's checkpoints as it is");
}

struct Names {
  std::vector<std::string> hooks, objects;
};

Names names_of(const HookList& hooks, const RunStates& states) {
  Names names;
  for (const HookList::Entry& entry : hooks.entries()) names.hooks.emplace_back(entry.hook->name());
  for (const RunStates::Entry& entry : states.entries()) names.objects.push_back(entry.name);
  return names;
}

}  // namespace

void collect_states(const HookList& hooks, const RunStates& states,
                    std::map<std::string, std::string>& sections) {
  for (const HookList::Entry& entry : hooks.entries()) {
    std::string state = saved(entry);
    if (state.empty()) continue;
    sections[std::string(kHook) + std::string(entry.hook->name())] = std::move(state);
  }
  for (const RunStates::Entry& entry : states.entries()) {
    sections[std::string(kObject) + entry.name] = saved(entry);
  }
  sections.insert(states.kept().begin(), states.kept().end());  // what is there already stays
}

void restore_states(const CheckpointFile& file, RunContext& run, const HookList& hooks) {
  const Names names = names_of(hooks, run.states);
  run.states.kept().clear();
  for (const auto& entry : file.record()->sections) {
    const std::string& section = entry.first;
    const std::string& bytes = entry.second;
    if (section.starts_with(kHook)) {
      const std::string name = section.substr(kHook.size());
      if (Hook* hook = hooks.find(name)) {
        load_section(file, section, [&] { hook->load_state(bytes); });
        continue;
      }
      log_kept("hook", name, names.hooks, run);
    } else if (section.starts_with(kObject)) {
      const std::string name = section.substr(kObject.size());
      if (SavedState* state = run.states.find(name)) {
        load_section(file, section, [&] { state->load(name, bytes); });
        continue;
      }
      log_kept("object", name, names.objects, run);
    } else {
      // Not kept: written again, it would be older than everything around it.
      if (std::find(kEngine.begin(), kEngine.end(), section) == kEngine.end()) {
        run.log.info("The checkpoint's section '" + section + "' is none that resume reads");
      }
      continue;
    }
    run.states.kept().emplace(section, bytes);
  }
}

}  // namespace millrace
