// TimelineHook: the run as one self-contained HTML page: steps above, checkpoint I/O below, one
// time axis. Wheel or drag to zoom and move, point at a span for its numbers. Needs no network and
// no program but a browser; works for a hundred thousand steps.
// span_file_hook.h says when it is written.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "millrace/hooks/span_file_hook.h"

namespace millrace {

class TimelineHook final : public SpanFileHook {
 public:
  explicit TimelineHook(std::filesystem::path file = "timeline.html",
                        std::size_t max_spans = SpanRecorder::kMaxSpans)
      : SpanFileHook(std::move(file), max_spans, "timeline") {}

  std::string_view name() const override { return "TimelineHook"; }

 private:
  void draw(std::ostream& out, const SpanRecorder& recorder,
            const std::string& run_name) const override;
};

}  // namespace millrace
