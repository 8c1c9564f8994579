// Hooks: what runs beside the loop. A hook subscribes to the stages it serves, has a name and a
// default priority, and may keep a state that travels in every checkpoint. Everything happens on
// the train context, except background observers.
//
//     class GradientNorm final : public Hook {
//      public:
//       std::string_view name() const override { return "GradientNorm"; }
//       void subscribe(Subscriptions& on) override {
//         on.every<AfterTrainIter>(&GradientNorm::look, this);
//       }
//       ...
//     };
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "millrace/events/isolation.h"
#include "millrace/events/priority.h"
#include "millrace/events/stage_events.h"
#include "millrace/events/subscriptions.h"

namespace millrace {

struct RunContext;  // runtime/engine/run_context.h

class Hook {
 public:
  virtual ~Hook() = default;

  // Unique in one runner: it names the hook in errors and its state in checkpoints.
  virtual std::string_view name() const = 0;
  virtual Priority priority() const { return Priority::kNormal; }
  // Whether the run goes on after an error of this hook, one that it can do without; isolation.h.
  virtual Isolation isolation() const { return Isolation::none(); }

  // Once, before subscribe(): options are checked here, so that a wrong one fails before training.
  // `run` outlives the hook. It names its members' types only: include logger.h, message_hub.h ...
  // for those you use.
  virtual void attach(RunContext& run) { static_cast<void>(run); }
  virtual void subscribe(Subscriptions& on) = 0;

  // State as bytes; empty for none. Called at capture, which is inside the stage the save belongs
  // to, at CheckpointHook's priority (90): what a later hook of that stage does is not in it.
  // An exception ends that stage.
  virtual std::string save_state() const { return {}; }
  // Bytes of save_state() from the checkpoint being resumed, after BeforeRun and before
  // BeforeTrain. Not called when the checkpoint has none. Throw to refuse them. A run that lacks
  // the hook keeps its bytes for a later one.
  // StatefulHook (hook_state.h) does both with cereal, and checks versions and lengths.
  virtual void load_state(std::string_view state) { static_cast<void>(state); }
};

// What the user of a hook decides; what is not given is the hook's own.
struct HookOptions {
  std::optional<Priority> priority = {};
  std::optional<Isolation> isolation = {};
};

// The hooks of a run, in (priority, registration) order. Owned by the runner.
class HookList {
 public:
  HookList() = default;

  // Adds a hook. Throws ConfigError when the name is taken, or after training started.
  //   hooks.add(std::make_unique<Plot>(), {.isolation = Isolation::disable_after(3)});
  Hook& add(std::unique_ptr<Hook> hook, HookOptions options);
  Hook& add(std::unique_ptr<Hook> hook, std::optional<Priority> priority = {}) {
    return add(std::move(hook), HookOptions{priority, {}});
  }
  // Removes a default; false when there is none of that name. Throws ConfigError after training
  // started.
  bool remove(std::string_view name);
  Hook* find(std::string_view name) const;

  struct Entry {
    std::unique_ptr<Hook> hook;
    Priority priority;
    std::shared_ptr<IsolatedHook> isolated;  // null as a rule
  };
  const std::vector<Entry>& entries() const noexcept { return entries_; }

  // The table the reference logs at construction: priority and hook, in order of execution.
  std::string table() const;

  // One row for each isolated hook, in order. Any thread, once training started.
  std::vector<HookErrors> errors() const;

  void close() noexcept { closed_ = true; }

 private:
  std::vector<Entry> entries_;
  bool closed_ = false;
};

}  // namespace millrace
