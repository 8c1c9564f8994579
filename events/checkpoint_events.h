// What happens to checkpoints, and stop requests. Completions of background I/O reach the loop
// through the inbox, so these events are published on the train context like all others.
//
//   one save     Captured, then exactly one of Committed, Failed, Replaced, Discarded
//   not taken    Skipped
//   a best file that shares a save's bytes: Committed or Failed, with mode "link" or "copy"
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "millrace/events/stage_events.h"

namespace millrace {

using SteadyTime = std::chrono::steady_clock::time_point;
using Nanoseconds = std::chrono::nanoseconds;

// One point in time per phase of a save. Unset phases have the clock's epoch.
struct SaveTimeline {
  SteadyTime requested;        // the hook asked for it
  SteadyTime capture_started;  // nothing before it was in flight any more
  SteadyTime call_returned;    // training goes on
  SteadyTime staged;           // the last byte was copied out of live memory
  SteadyTime write_started;
  SteadyTime written;  // all bytes handed to the file system
  SteadyTime synced;   // file data on the device
  SteadyTime durable;  // file, directory and last_checkpoint are on the device
};

struct CheckpointRow {
  std::string name;       // epoch_3.pth
  std::string directory;  // where its storage keeps it
  std::string reason;     // interval, last, time, best, stop, on_demand, retaken
  std::string mode;       // lazy, eager, blocking; link, copy
  std::string save_id;
  std::string error;  // why it failed, was skipped, replaced or discarded
  std::uint64_t generation = 0;
  std::uint64_t bytes = 0;    // of the file
  std::uint64_t written = 0;  // of data for it: 0 for a link
  std::int64_t epoch = 0;     // finished when captured
  std::int64_t iter = 0;
  bool in_place = false;      // the file is there, also when its row or last_checkpoint failed
  Nanoseconds stall_call{0};  // the train thread inside the save call
  Nanoseconds stall_gate{0};  // the train thread waiting or copying at the gate for this save
  SaveTimeline times;
};

struct CheckpointCaptured {  // handles are taken; training may go on
  static constexpr std::string_view kName = "checkpoint_captured";
  using Owned = CheckpointRow;
  const CheckpointRow& row;
  Owned own() const { return row; }
};
struct CheckpointCommitted {  // survives kill -9 and power loss from `times.durable` on
  static constexpr std::string_view kName = "checkpoint_committed";
  using Owned = CheckpointRow;
  const CheckpointRow& row;
  Owned own() const { return row; }
};
struct CheckpointFailed {  // nothing was retired for it; row.error says why
  static constexpr std::string_view kName = "checkpoint_failed";
  using Owned = CheckpointRow;
  const CheckpointRow& row;
  Owned own() const { return row; }
};
struct CheckpointSkipped {  // not taken, because an earlier save was still in flight
  static constexpr std::string_view kName = "checkpoint_skipped";
  using Owned = CheckpointRow;
  const CheckpointRow& row;
  Owned own() const { return row; }
};
struct CheckpointReplaced {  // a waiting save gave way to a newer one
  static constexpr std::string_view kName = "checkpoint_replaced";
  using Owned = CheckpointRow;
  const CheckpointRow& row;
  Owned own() const { return row; }
};
struct CheckpointDiscarded {  // the snapshot was invalid; a new one is taken
  static constexpr std::string_view kName = "checkpoint_discarded";
  using Owned = CheckpointRow;
  const CheckpointRow& row;
  Owned own() const { return row; }
};

struct RemovedRow {
  std::string name, directory, error;  // error is empty when the file is gone
  std::uint64_t bytes = 0;             // that it held
  SteadyTime started, finished;
};
struct CheckpointRemoved {
  static constexpr std::string_view kName = "checkpoint_removed";
  using Owned = RemovedRow;
  const RemovedRow& row;
  Owned own() const { return row; }
};
struct PublishedRow {
  std::string name, directory, published_name, sha256;
  std::string error;  // empty when the file is there
  std::uint64_t bytes = 0;
  SteadyTime started, finished;
};
struct CheckpointPublished {  // or not: row.error
  static constexpr std::string_view kName = "checkpoint_published";
  using Owned = PublishedRow;
  const PublishedRow& row;
  Owned own() const { return row; }
};

// Somebody wants a checkpoint of this very state: Runner::checkpoint_now(), or a hook that
// publishes it. CheckpointHook answers with a save that is never skipped or replaced.
struct CheckpointRequested {
  static constexpr std::string_view kName = "checkpoint_requested";
  static constexpr bool kSelfContained = true;
  bool pinned = false;  // retention leaves it alone until it is unpinned
};

// Someone asked the run to end: a signal, the host, a hook. Published once, at the next yield of
// the loop; the iteration under way has finished.
struct StopRequested {
  static constexpr std::string_view kName = "stop_requested";
  struct Owned {
    Progress at;
    std::string reason;
  };
  const Progress& at;
  std::string_view reason;

  Owned own() const { return {at, std::string(reason)}; }
};

}  // namespace millrace
