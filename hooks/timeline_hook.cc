#include "millrace/hooks/timeline_hook.h"

#include <ostream>
#include <string>

#include "millrace/hooks/timeline_page.h"

namespace millrace {
namespace {

// A JavaScript string that may stand inside a script element.
std::string script_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out + "\"";
}

std::int64_t microseconds(std::chrono::nanoseconds time) { return time.count() / 1000; }

}  // namespace

void TimelineHook::draw(std::ostream& out, const SpanRecorder& recorder,
                        const std::string& run_name) const {
  out << kTimelineHead << "{name:" << script_text(run_name) << ",rows:[";
  for (int row = 1; row <= SpanRecorder::kRows; ++row) {
    out << (row > 1 ? "," : "") << '"' << SpanRecorder::row_name(row) << '"';
  }
  out << "],spans:[\n";
  for (const Span& span : recorder.spans()) {
    out << "[" << span.row << "," << span.kind << ","
        << microseconds(span.first - recorder.origin()) << ","
        << microseconds(span.last - span.first) << ",";
    if (span.kind == Span::kStep) {
      out << span.number;
    } else {
      out << script_text(span.name) << "," << span.bytes << "," << script_text(span.mode) << ","
          << script_text(span.error);
    }
    out << "],\n";
  }
  out << "]}" << kTimelineTail;
}

}  // namespace millrace
