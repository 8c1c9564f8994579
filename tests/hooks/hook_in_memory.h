// A run with CheckpointHook whose checkpoints lie in memory that outlives it: run after run in one
// "folder", with commits that a test watches, holds and makes fail, and events as text.
#pragma once

#include <cerrno>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "millrace/events/checkpoint_events.h"
#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/io/checkpoint_identity.h"
#include "millrace/runtime/engine/message_hub.h"
#include "tests/support/controlled_storage.h"
#include "tests/support/fake_run.h"
#include "tests/support/hold.h"
#include "tests/support/images.h"
#include "tests/support/scripted_metric.h"
#include "tests/support/temp_dir.h"

namespace millrace::test {

using Scores = std::vector<std::pair<std::string, std::vector<double>>>;

[[noreturn]] inline void fail_write(std::string_view name) {
  throw StorageError("write", std::string(name), EIO);
}

struct HookInMemory {
  // `scores` of a validation after each epoch; none: no validation.
  std::unique_ptr<FakeRun> make(CheckpointHookOptions options, const Scores& scores,
                                std::int64_t epochs, ControlledStorage::OnCommit on_commit = {},
                                ControlledStorage::OnCatalog on_catalog = {}) {
    auto run = std::make_unique<FakeRun>(dir.path() / "run");
    run->options.max_epochs = epochs;
    if (!scores.empty()) run->parts.val = loader(fake_dataset(4), {.batch_size = 2});
    for (const auto& [name, values] : scores) {
      run->parts.metrics.push_back(std::make_unique<ScriptedMetric>(name, values));
    }
    run->parts.storage =
        std::make_unique<ControlledStorage>(files, std::move(on_commit), std::move(on_catalog));
    run->parts.hooks.add(std::make_unique<CheckpointHook>(std::move(options)));
    run->parts.hooks.add(std::make_unique<TestHook>(
        [this](Subscriptions& on, RunContext&) { watch(on); }, "Watch", Priority::kHighest));
    return run;
  }
  void watch(Subscriptions& on) {
    const auto tell = [this](const char* what, const auto& row) {
      told.push_back(what + (" " + row.name) + (row.error.empty() ? "" : ": " + row.error));
    };
    on.every<CheckpointCommitted>([tell](const auto& e) { tell("committed", e.row); });
    on.every<CheckpointFailed>([tell](const auto& e) { tell("failed", e.row); });
    on.every<CheckpointDiscarded>([tell](const auto& e) { tell("discarded", e.row); });
    on.every<CheckpointReplaced>([tell](const auto& e) { tell("replaced", e.row); });
    on.every<CheckpointRemoved>([tell](const auto& e) { tell("removed", e.row); });
    on.every<CheckpointPublished>([this](const CheckpointPublished& e) {
      told.push_back("published " + e.row.name + (e.row.error.empty() ? "" : ": " + e.row.error));
    });
  }
  // What it threw, with its causes; empty: nothing.
  static std::string train(FakeRun& run) {
    try {
      run.train();
    } catch (const std::exception& error) {
      std::string text = error.what();
      try {
        std::rethrow_if_nested(error);
      } catch (const std::exception& cause) {
        text += std::string(": ") + cause.what();
      }
      return text;
    }
    return {};
  }
  static CheckpointHook& hook(FakeRun& run) {
    return dynamic_cast<CheckpointHook&>(*run.runner().hooks().find("CheckpointHook"));
  }
  std::vector<std::string> checkpoints() const {
    std::vector<std::string> names;
    for (const std::string& name : names_of(*files)) {
      if (name.ends_with(".pth")) names.push_back(name);
    }
    return names;
  }
  std::string save_id(const std::string& name) const {
    return read_identity(files->open(name)).value().save_id;
  }
  // An entry of the message hub, a path without its folder; empty: there is none.
  static std::string info(FakeRun& run, const std::string& key) {
    const pickle::Value* value = run.runner().hub().find_info(key);
    if (value == nullptr) return {};
    const std::string* text = value->as_string();
    return text != nullptr ? text->substr(text->rfind('/') + 1) : describe(*value, 40);
  }
  bool was_told(const std::string& line) const {
    for (const std::string& each : told) {
      if (each.starts_with(line)) return true;
    }
    return false;
  }

  TempDir dir;
  std::shared_ptr<MemoryStorage> files = std::make_shared<MemoryStorage>();
  std::vector<std::string> told;  // events, oldest first
};

// Says of the third storage of a capture that it was written past the gate.
class WrittenPastTheGate final : public CaptureWatch {
 public:
  std::string moved(std::size_t i) const override { return i == 2 ? "written past the gate" : ""; }
};

// The n-th capture of the run, from 0, is found to be written past the gate.
inline void discard_capture(FakeRun& run, int n) {
  run.strategy->make_watch = [n, next = 0]() mutable -> std::shared_ptr<const CaptureWatch> {
    return next++ == n ? std::make_shared<WrittenPastTheGate>() : nullptr;
  };
}

}  // namespace millrace::test
