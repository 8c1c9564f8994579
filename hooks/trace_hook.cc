#include "millrace/hooks/trace_hook.h"

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/logger.h"
#include "millrace/runtime/engine/run_context.h"

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

void TraceHook::attach(RunContext& run) {
  run_ = &run;
  if (file_.is_relative()) file_ = run.work_dir / file_;
}

void TraceHook::subscribe(Subscriptions& on) {
  recorder_.subscribe(on, run_->strategy);
  on.every<AfterRun>([this](const AfterRun&) { write(); });
}

void TraceHook::write() const {
  if (!recorder_.anything_ran()) return;
  std::ofstream out(file_, std::ios::trunc);
  out << "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  for (int row = 1; row <= SpanRecorder::kRows; ++row) {
    const bool used = std::any_of(recorder_.spans().begin(), recorder_.spans().end(),
                                  [row](const Span& span) { return span.row == row; });
    if (!used) continue;
    out << "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":1,\"tid\":" << row
        << ",\"args\":{\"name\":\"" << row << " " << SpanRecorder::row_name(row) << "\"}},\n";
  }
  out << std::fixed;
  for (const Span& span : recorder_.spans()) {
    const bool instant = span.kind == Span::kMark;
    out << "{\"ph\":\"" << (instant ? "i\",\"s\":\"p" : "X") << "\",\"pid\":1,\"tid\":" << span.row
        << ",\"name\":" << json_text(span.name)
        << ",\"ts\":" << microseconds(recorder_.origin(), span.first);
    if (!instant) out << ",\"dur\":" << microseconds(span.first, span.last);
    if (span.kind != Span::kStep && span.kind != Span::kValidation) {
      out << ",\"args\":{\"bytes\":" << span.bytes << ",\"mode\":" << json_text(span.mode)
          << ",\"error\":" << json_text(span.error) << "}";
    }
    out << "},\n";
  }
  out << "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":1,\"args\":{\"name\":"
      << json_text(run_->run_name) << "}}\n]}\n";
  out.close();
  if (!out) run_->log.warn(StorageError("write trace", file_.string(), errno).what());
  const std::string shortened = recorder_.shortened();
  if (!shortened.empty()) run_->log.info(file_.filename().string() + " " + shortened);
}

}  // namespace millrace
