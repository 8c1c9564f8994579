// TraceHook: one time line of training and I/O, as a Chrome trace that Perfetto and
// chrome://tracing open. Steps above, checkpoints below, on one axis; written when the run ends
// (not at all when no step began, so that a failed start keeps the earlier file).
// span_recorder.h lists the rows.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include "millrace/hooks/span_recorder.h"
#include "millrace/runtime/engine/hook.h"

namespace millrace {

class TraceHook final : public Hook {
 public:
  // `file` relative: below the work dir. It holds the newest `max_spans` spans; that there were
  // more is logged.
  explicit TraceHook(std::filesystem::path file = "trace.json",
                     std::size_t max_spans = SpanRecorder::kMaxSpans)
      : file_(std::move(file)), recorder_(max_spans) {}

  std::string_view name() const override { return "TraceHook"; }
  Priority priority() const override { return Priority::kHighest; }
  void attach(RunContext& run) override;
  void subscribe(Subscriptions& on) override;

 private:
  void write() const;

  std::filesystem::path file_;
  RunContext* run_ = nullptr;
  SpanRecorder recorder_;
};

}  // namespace millrace
