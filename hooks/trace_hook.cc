#include "millrace/hooks/trace_hook.h"

#include <algorithm>
#include <ostream>

namespace millrace {
namespace {

std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + "\"";
}

double microseconds(SteadyTime first, SteadyTime last) {
  return std::chrono::duration<double, std::micro>(last - first).count();
}

}  // namespace

void TraceHook::draw(std::ostream& out, const SpanRecorder& recorder,
                     const std::string& run_name) const {
  out << "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  for (int row = 1; row <= SpanRecorder::kRows; ++row) {
    const bool used = std::any_of(recorder.spans().begin(), recorder.spans().end(),
                                  [row](const Span& span) { return span.row == row; });
    if (!used) continue;
    out << "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":1,\"tid\":" << row
        << ",\"args\":{\"name\":\"" << row << " " << SpanRecorder::row_name(row) << "\"}},\n";
  }
  out << std::fixed;
  for (const Span& span : recorder.spans()) {
    const bool instant = span.kind == Span::kMark;
    out << "{\"ph\":\"" << (instant ? "i\",\"s\":\"p" : "X") << "\",\"pid\":1,\"tid\":" << span.row
        << ",\"name\":" << json_text(span.name)
        << ",\"ts\":" << microseconds(recorder.origin(), span.first);
    if (!instant) out << ",\"dur\":" << microseconds(span.first, span.last);
    if (span.kind != Span::kStep && span.kind != Span::kValidation) {
      out << ",\"args\":{\"bytes\":" << span.bytes << ",\"mode\":" << json_text(span.mode)
          << ",\"error\":" << json_text(span.error) << "}";
    }
    out << "},\n";
  }
  out << "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":1,\"args\":{\"name\":"
      << json_text(run_name) << "}}\n]}\n";
}

}  // namespace millrace
