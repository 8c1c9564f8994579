// SpanRecorder: what ran when, in training and in the I/O beside it, as spans on one clock.
// TraceHook and TimelineHook draw it. Train context. Keeps the newest spans only, as a long run has
// one a step and five a save.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

#include "millrace/events/checkpoint_events.h"
#include "millrace/events/subscriptions.h"

namespace millrace {

class Strategy;

struct Span {
  enum Row : int {
    kTrain = 1,  // steps, validation, and the part of a save the train thread takes part in
    kStaging,    // from capture until the last byte left live memory
    kWrite,      // bytes to the file system, then its sync
    kCommit,     // rename, directory, catalog, last_checkpoint; second names
    kRotation,   // removal of older files
    kPublish,    // reduced copies, hashed and written
    kStream,     // the device's train stream: batches, where a strategy has one
  };
  enum Kind : int {
    kStep,
    kValidation,
    kSave,
    kWait,  // the train thread at the gate, of a save; placed at its end
    kWork,
    kMark,  // a point in time: skipped, replaced, discarded
    kFailed,
  };
  Row row;
  Kind kind;
  std::string name;
  SteadyTime first, last;
  std::uint64_t bytes = 0;
  std::string mode, error;
  std::int64_t number = 0;  // of a step, from 1
};

class SpanRecorder {
 public:
  static constexpr int kRows = 7;
  static constexpr std::size_t kMaxSpans = 200'000;  // 25 MB of memory and of file

  explicit SpanRecorder(std::size_t max_spans) : max_spans_(max_spans) {}

  static const char* row_name(int row);  // 1 .. kRows

  void subscribe(Subscriptions& on, Strategy& strategy);
  const std::deque<Span>& spans() const noexcept { return spans_; }
  // How many older spans were let go; 0 while all of the run's are there.
  std::uint64_t dropped() const noexcept { return dropped_; }
  // "holds the newest 9 of 12 spans", for the log; empty when none was dropped.
  std::string shortened() const;
  // False when no step began: a failed start keeps what an earlier run wrote.
  bool anything_ran() const noexcept { return !spans_.empty() || iter_started_ != SteadyTime{}; }
  SteadyTime origin() const noexcept { return origin_; }

 private:
  void add(Span span);
  void add_stream(Strategy& strategy);
  void add_save(const CheckpointRow& row);
  void mark(const char* what, const CheckpointRow& row);

  std::size_t max_spans_;
  SteadyTime origin_ = std::chrono::steady_clock::now();
  SteadyTime iter_started_, val_started_;
  std::deque<Span> spans_;
  std::uint64_t dropped_ = 0;
  std::int64_t stream_number_ = 0;  // of the strategy's newest span that was taken
};

}  // namespace millrace
