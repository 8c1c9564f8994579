// One save on its way: what was asked, what was captured, and what became of it.
//
// Made and filled on the train context; write_file() runs on an I/O thread, while the train context
// touches only the snapshot, request.may_drop and `followers`, which that thread does not look at;
// afterwards it belongs to the train context again.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "millrace/events/checkpoint_events.h"
#include "millrace/io/checkpoint_store.h"
#include "millrace/io/state_record.h"
#include "millrace/runtime/engine/checkpoint_content.h"
#include "millrace/runtime/engine/strategy.h"
#include "millrace/runtime/staging/staging.h"

namespace millrace {

// What happens to a save that comes while another one is being written.
enum class OnBusy : std::uint8_t {
  kWait,     // training waits for the other one: every file of the reference is written
  kSkip,     // this one is not taken
  kReplace,  // it is captured into a second arena and waits its turn; a newer one takes its place
};

std::string_view on_busy_name(OnBusy on_busy);
OnBusy parse_on_busy(std::string_view name);  // throws ConfigError with the nearest name

struct SaveRequest {
  std::string filename;  // epoch_3.pth
  std::string reason;    // interval, last, time, best, stop, on_demand
  std::string save_id = new_save_id();
  StageMode mode = StageMode::kAuto;
  OnBusy on_busy = OnBusy::kWait;
  bool may_drop = false;  // skip and replace apply; false for best, stop, last and on demand
  bool save_optimizer = true;
  bool save_param_scheduler = true;
  bool pointer = true;  // becomes last_checkpoint
  // The requester saves again if the snapshot is discarded; otherwise that counts as a failure.
  bool retakes = false;
  bool pinned = false;
  std::map<std::string, double> scores = {};  // known already: of a best file
  // Called when the save is sure to be taken, just before the capture: what a file shall say about
  // itself goes into the hub here.
  std::function<void()> before_capture = {};
  std::int64_t epoch = 0;  // finished ones, as meta has them
  std::int64_t iter = 0;
  CheckpointStore* store = nullptr;
};

struct SaveJob {
  SaveRequest request;
  CheckpointRow row;
  CheckpointContent content;
  CapturedState state;
  StateRecord record;
  std::shared_ptr<Snapshot> snapshot;
  std::int64_t saved_at_ns = 0;  // since the Unix epoch
  bool discarded = false;        // somebody wrote captured memory past the gate
  CommitTimes io_times;          // written by the I/O thread, read after it is done
  std::uint64_t io_bytes = 0;    // likewise
  bool file_there = false;       // likewise: committed, whatever becomes of row and pointer
  std::string tail_digest;       // of that file

  // What waits for this file, run when its fate is known: `committed` says which.
  std::vector<std::function<void(const SaveJob&, bool committed)>> followers;

  // I/O thread. Commits the file, its catalog row and the pointer; called again after it threw,
  // what was not committed yet. Whatever it throws, the snapshot no longer reads live memory
  // afterwards.
  void write_file();
  // Train context: what is known before anything is written, into `row` and `record`.
  void describe(std::uint64_t generation, const std::string& parent_id);

 private:
  void write_image();
};

}  // namespace millrace
