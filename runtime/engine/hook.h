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
#include <vector>

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

  // Once, before subscribe(): options are checked here, so that a wrong one fails before training.
  // `run` outlives the hook. It names its members' types only: include logger.h, message_hub.h ...
  // for those you use.
  virtual void attach(RunContext& run) { static_cast<void>(run); }
  virtual void subscribe(Subscriptions& on) = 0;

  // State as bytes; empty for none. Called at capture, which is inside the stage the save belongs
  // to, at CheckpointHook's priority (90): what a later hook of that stage does is not in it.
  // record_stream.h serializes with cereal.
  virtual std::string save_state() const { return {}; }
  // Bytes of save_state() from the checkpoint being resumed, after BeforeRun and before
  // BeforeTrain. Not called when the checkpoint has none. Throw to refuse them.
  virtual void load_state(std::string_view state) { static_cast<void>(state); }
};

// The hooks of a run, in (priority, registration) order. Owned by the runner.
class HookList {
 public:
  HookList() = default;

  // Adds a hook; `priority` overrides its own. Throws ConfigError when the name is taken, or after
  // training started.
  Hook& add(std::unique_ptr<Hook> hook, std::optional<Priority> priority = {});
  // Removes a default; false when there is none of that name. Throws ConfigError after training
  // started.
  bool remove(std::string_view name);
  Hook* find(std::string_view name) const;

  struct Entry {
    std::unique_ptr<Hook> hook;
    Priority priority;
  };
  const std::vector<Entry>& entries() const noexcept { return entries_; }

  // The table the reference logs at construction: priority and hook, in order of execution.
  std::string table() const;

  void close() noexcept { closed_ = true; }

 private:
  std::vector<Entry> entries_;
  bool closed_ = false;
};

}  // namespace millrace
