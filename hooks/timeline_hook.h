// TimelineHook: the run as one self-contained HTML page: steps above, checkpoint I/O below, one
// time axis. Wheel or drag to zoom and move, point at a span for its numbers. Needs no network and
// no program but a browser; works for a hundred thousand steps.
//
// Written when the run ends, unless no step began.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string_view>
#include <utility>

#include "millrace/hooks/span_recorder.h"
#include "millrace/runtime/engine/hook.h"

namespace millrace {

class TimelineHook final : public Hook {
 public:
  // `file` relative: below the work dir. It holds the newest `max_spans` spans; that there were
  // more is logged.
  explicit TimelineHook(std::filesystem::path file = "timeline.html",
                        std::size_t max_spans = SpanRecorder::kMaxSpans)
      : file_(std::move(file)), recorder_(max_spans) {}

  std::string_view name() const override { return "TimelineHook"; }
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
