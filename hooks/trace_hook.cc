#include "millrace/hooks/trace_hook.h"

#include <cerrno>
#include <fstream>
#include <utility>

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

SteadyTime now() { return std::chrono::steady_clock::now(); }

}  // namespace

void TraceHook::attach(RunContext& run) {
  run_ = &run;
  if (file_.is_relative()) file_ = run.work_dir / file_;
}

void TraceHook::subscribe(Subscriptions& on) {
  on.every<BeforeTrainIter>([this](const BeforeTrainIter&) { iter_started_ = now(); });
  on.every<AfterTrainIter>([this](const AfterTrainIter& e) {
    add(kTrain, "step " + std::to_string(e.at.iter + 1), iter_started_, now());
  });
  on.every<BeforeVal>([this](const BeforeVal&) { val_started_ = now(); });
  on.every<AfterVal>([this](const AfterVal& e) {
    add(kTrain, "validation after epoch " + std::to_string(e.at.epoch), val_started_, now());
  });
  on.every<CheckpointCommitted>([this](const CheckpointCommitted& e) { add_save(e.row); });
  on.every<CheckpointFailed>([this](const CheckpointFailed& e) { add_save(e.row); });
  on.every<CheckpointRemoved>([this](const CheckpointRemoved& e) {
    add(kRotation, "remove " + e.row.name, e.row.started, e.row.finished);
  });
  on.every<AfterRun>([this](const AfterRun&) { write(); });
}

void TraceHook::add(Row row, std::string name, SteadyTime first, SteadyTime last,
                    std::string args) {
  if (first == SteadyTime{} || last < first) return;  // a phase that was not reached
  spans_.push_back({row, std::move(name), first, last, std::move(args)});
}

void TraceHook::add_save(const CheckpointRow& row) {
  const SaveTimeline& t = row.times;
  const std::string args = "{\"bytes\":" + std::to_string(row.bytes) +
                           ",\"mode\":" + json_text(row.mode) +
                           ",\"error\":" + json_text(row.error) + "}";
  add(kTrain, "save " + row.name, t.requested, t.call_returned, args);
  add(kStaging, "stage " + row.name, t.capture_started, t.staged, args);
  add(kWrite, "write " + row.name, t.write_started, t.written, args);
  add(kWrite, "sync " + row.name, t.written, t.synced, args);
  add(kCommit, "commit " + row.name, t.synced, t.durable, args);
}

void TraceHook::write() const {
  // Nothing ran: an earlier run's file stays.
  if (spans_.empty() && iter_started_ == SteadyTime{}) return;
  std::ofstream out(file_, std::ios::trunc);
  out << "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  const std::pair<Row, const char*> rows[] = {{kTrain, "1 train"},
                                              {kStaging, "2 staging"},
                                              {kWrite, "3 write"},
                                              {kCommit, "4 commit"},
                                              {kRotation, "5 rotation"}};
  for (const auto& [row, name] : rows) {
    out << "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":1,\"tid\":" << row
        << ",\"args\":{\"name\":\"" << name << "\"}},\n";
  }
  out << std::fixed;
  for (const Span& span : spans_) {
    out << "{\"ph\":\"X\",\"pid\":1,\"tid\":" << span.row << ",\"name\":" << json_text(span.name)
        << ",\"ts\":" << microseconds(origin_, span.first)
        << ",\"dur\":" << microseconds(span.first, span.last);
    if (!span.args.empty()) out << ",\"args\":" << span.args;
    out << "},\n";
  }
  out << "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":1,\"args\":{\"name\":"
      << json_text(run_->run_name) << "}}\n]}\n";
  out.close();
  if (!out) run_->log.warn(StorageError("write trace", file_.string(), errno).what());
}

}  // namespace millrace
