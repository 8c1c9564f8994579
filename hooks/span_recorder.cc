#include "millrace/hooks/span_recorder.h"

#include <algorithm>
#include <utility>

#include "millrace/runtime/engine/strategy.h"

namespace millrace {
namespace {

SteadyTime now() { return std::chrono::steady_clock::now(); }

}  // namespace

const char* SpanRecorder::row_name(int row) {
  constexpr const char* kNames[kRows] = {"train",    "staging", "write",       "commit",
                                         "rotation", "publish", "train stream"};
  return kNames[row - 1];
}

void SpanRecorder::subscribe(Subscriptions& on, Strategy& strategy) {
  on.every<BeforeTrain>([this, &strategy](const BeforeTrain&) { add_stream(strategy); });
  on.every<AfterRun>([this, &strategy](const AfterRun&) { add_stream(strategy); });
  on.every<BeforeTrainIter>([this](const BeforeTrainIter&) { iter_started_ = now(); });
  on.every<AfterTrainIter>([this, &strategy](const AfterTrainIter& e) {
    add_stream(strategy);
    add({Span::kTrain,
         Span::kStep,
         "step " + std::to_string(e.at.iter + 1),
         iter_started_,
         now(),
         0,
         {},
         {},
         e.at.iter + 1});
  });
  on.every<BeforeVal>([this](const BeforeVal&) { val_started_ = now(); });
  on.every<AfterVal>([this](const AfterVal& e) {
    add({Span::kTrain,
         Span::kValidation,
         "validation after epoch " + std::to_string(e.at.epoch),
         val_started_,
         now(),
         0,
         {},
         {}});
  });
  on.every<CheckpointCommitted>([this](const CheckpointCommitted& e) { add_save(e.row); });
  on.every<CheckpointFailed>([this](const CheckpointFailed& e) { add_save(e.row); });
  on.every<CheckpointSkipped>([this](const CheckpointSkipped& e) { mark("skip ", e.row); });
  on.every<CheckpointReplaced>([this](const CheckpointReplaced& e) { mark("replace ", e.row); });
  on.every<CheckpointDiscarded>([this](const CheckpointDiscarded& e) { mark("discard ", e.row); });
  on.every<CheckpointRemoved>([this](const CheckpointRemoved& e) {
    add({Span::kRotation,
         e.row.error.empty() ? Span::kWork : Span::kFailed,
         "remove " + e.row.name,
         e.row.started,
         e.row.finished,
         e.row.bytes,
         {},
         e.row.error});
  });
  on.every<CheckpointPublished>([this](const CheckpointPublished& e) {
    add({Span::kPublish,
         e.row.error.empty() ? Span::kWork : Span::kFailed,
         "publish " + e.row.name,
         e.row.started,
         e.row.finished,
         e.row.bytes,
         {},
         e.row.error});
  });
}

void SpanRecorder::add(Span span) {
  // A phase that was not reached.
  if (span.first == SteadyTime{} || span.last < span.first) return;
  spans_.push_back(std::move(span));
  if (spans_.size() <= max_spans_) return;
  spans_.pop_front();
  ++dropped_;
}

std::string SpanRecorder::shortened() const {
  if (dropped_ == 0) return {};
  return "holds the newest " + std::to_string(spans_.size()) + " of " +
         std::to_string(spans_.size() + dropped_) + " spans";
}

void SpanRecorder::add_stream(Strategy& strategy) {
  const auto spans = strategy.stream_spans();
  const auto is_older = [](std::int64_t seen, const StreamSpan& span) {
    return seen < span.number;
  };
  auto next = std::upper_bound(spans.begin(), spans.end(), stream_number_, is_older);
  for (; next != spans.end(); ++next) {
    const StreamSpan& span = *next;
    stream_number_ = span.number;
    add({Span::kStream,
         Span::kStep,
         "batch " + std::to_string(span.number),
         span.first,
         span.last,
         0,
         {},
         {},
         span.number});
  }
}

void SpanRecorder::mark(const char* what, const CheckpointRow& row) {
  const SteadyTime at = now();
  add({Span::kTrain, Span::kMark, what + row.name, at, at, row.bytes, row.mode, row.error});
}

void SpanRecorder::add_save(const CheckpointRow& row) {
  const SaveTimeline& t = row.times;
  const Span::Kind work = row.error.empty() ? Span::kWork : Span::kFailed;
  const auto phase = [&](Span::Row where, Span::Kind kind, const char* what, SteadyTime first,
                         SteadyTime last) {
    add({where, kind, what + row.name, first, last, row.bytes, row.mode, row.error});
  };
  phase(Span::kTrain, Span::kSave, "save ", t.requested, t.call_returned);
  if (row.stall_gate.count() > 0) {
    const SteadyTime reached = std::max(t.capture_started, t.staged - row.stall_gate);
    phase(Span::kTrain, Span::kWait, "gate ", reached, t.staged);
  }
  phase(Span::kStaging, work, "stage ", t.capture_started, t.staged);
  phase(Span::kWrite, work, "write ", t.write_started, t.written);
  phase(Span::kWrite, work, "sync ", t.written, t.synced);
  phase(Span::kCommit, work, "commit ", t.synced, t.durable);
}

}  // namespace millrace
