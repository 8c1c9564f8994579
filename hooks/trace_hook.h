// TraceHook: one time line of training and I/O, as a Chrome trace that Perfetto and
// chrome://tracing open. Steps above, checkpoints below, on one axis. span_recorder.h lists
// the rows, span_file_hook.h says when it is written.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "millrace/hooks/span_file_hook.h"

namespace millrace {

class TraceHook final : public SpanFileHook {
 public:
  explicit TraceHook(std::filesystem::path file = "trace.json",
                     std::size_t max_spans = SpanRecorder::kMaxSpans)
      : SpanFileHook(std::move(file), max_spans, "trace") {}

  std::string_view name() const override { return "TraceHook"; }

 private:
  void draw(std::ostream& out, const SpanRecorder& recorder,
            const std::string& run_name) const override;
};

}  // namespace millrace
