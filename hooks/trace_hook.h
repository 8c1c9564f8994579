// TraceHook: one time line of training and I/O, as a Chrome trace that Perfetto and
// chrome://tracing open. Steps above, checkpoints below, on one axis; written when the run ends
// (not at all when no step began, so that a failed start keeps the earlier file).
//
//   train     steps, validation, and the part of a save the train thread takes part in
//   staging   from capture until the last byte left live memory
//   write     bytes to the file system, then its sync
//   commit    rename, directory, last_checkpoint
//   rotation  removal of older files
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/events/checkpoint_events.h"
#include "millrace/runtime/engine/hook.h"

namespace millrace {

class TraceHook final : public Hook {
 public:
  // `file` relative: below the work dir.
  explicit TraceHook(std::filesystem::path file = "trace.json") : file_(std::move(file)) {}

  std::string_view name() const override { return "TraceHook"; }
  Priority priority() const override { return Priority::kHighest; }
  void attach(RunContext& run) override;
  void subscribe(Subscriptions& on) override;

 private:
  enum Row : int { kTrain = 1, kStaging, kWrite, kCommit, kRotation };
  struct Span {
    Row row;
    std::string name;
    SteadyTime first, last;
    std::string args;  // a JSON object, or empty
  };
  void add(Row row, std::string name, SteadyTime first, SteadyTime last, std::string args = {});
  void add_save(const CheckpointRow& row);
  void write() const;

  std::filesystem::path file_;
  RunContext* run_ = nullptr;
  SteadyTime origin_ = std::chrono::steady_clock::now();
  SteadyTime iter_started_, val_started_;
  std::vector<Span> spans_;
};

}  // namespace millrace
