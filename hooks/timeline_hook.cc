#include "millrace/hooks/timeline_hook.h"

#include <cerrno>
#include <fstream>
#include <string>

#include "millrace/hooks/timeline_page.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/logger.h"
#include "millrace/runtime/engine/run_context.h"

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

void TimelineHook::attach(RunContext& run) {
  run_ = &run;
  if (file_.is_relative()) file_ = run.work_dir / file_;
}

void TimelineHook::subscribe(Subscriptions& on) {
  recorder_.subscribe(on, run_->strategy);
  on.every<AfterRun>([this](const AfterRun&) { write(); });
}

void TimelineHook::write() const {
  if (!recorder_.anything_ran()) return;
  std::ofstream out(file_, std::ios::trunc);
  out << kTimelineHead << "{name:" << script_text(run_->run_name) << ",rows:[";
  for (int row = 1; row <= SpanRecorder::kRows; ++row) {
    out << (row > 1 ? "," : "") << '"' << SpanRecorder::row_name(row) << '"';
  }
  out << "],spans:[\n";
  for (const Span& span : recorder_.spans()) {
    out << "[" << span.row << "," << span.kind << ","
        << microseconds(span.first - recorder_.origin()) << ","
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
  out.close();
  if (!out) run_->log.warn(StorageError("write timeline", file_.string(), errno).what());
  const std::string shortened = recorder_.shortened();
  if (!shortened.empty()) run_->log.info(file_.filename().string() + " " + shortened);
}

}  // namespace millrace
