#include "millrace/runtime/engine/save_job.h"

#include <utility>

#include "millrace/io/pickler.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/staging/pth_image.h"

namespace millrace {

std::string_view on_busy_name(OnBusy on_busy) {
  switch (on_busy) {
    case OnBusy::kWait:
      return "wait";
    case OnBusy::kSkip:
      return "skip";
    case OnBusy::kReplace:
      return "replace";
  }
  return "wait";
}

OnBusy parse_on_busy(std::string_view name) {
  for (const OnBusy on_busy : {OnBusy::kWait, OnBusy::kSkip, OnBusy::kReplace}) {
    if (on_busy_name(on_busy) == name) return on_busy;
  }
  throw ConfigError("CheckpointHook.on_busy",
                    "unknown choice '" + std::string(name) + "'; valid: wait, skip, replace",
                    nearest_name(name, {"wait", "skip", "replace"}));
}

namespace {

// Afterwards live memory is not read any more; a second attempt still finds the whole state, where
// there can be one.
void give_up(Snapshot& snapshot) {
  if (snapshot.rereadable()) {
    snapshot.stage_all();
  } else {
    snapshot.abandon("its file could not be written");
  }
}

}  // namespace

void SaveJob::write_file() {
  if (!file_there) write_image();
  CheckpointStore::CommitOptions options;
  options.identity = record.identity;
  options.saved_at_ns = saved_at_ns;
  options.scores = request.scores;
  options.pinned = request.pinned;
  options.pointer = request.pointer;
  options.digest = tail_digest;
  io_times.durable = request.store->commit_records(request.filename, io_bytes, options);
}

void SaveJob::write_image() {
  try {
    std::vector<PthLayout::NamedBytes> extra;
    extra.emplace_back(CheckpointStore::kStateEntry, encode_state_record(record));
    PthImage image(snapshot, pickle::pickle(content.root(), content.storage_names()),
                   std::move(extra));
    io_bytes = image.size();
    io_times = request.store->commit_file(request.filename, image);
    tail_digest = image.tail_digest();
    file_there = true;
  } catch (...) {
    give_up(*snapshot);
    throw;
  }
}

void SaveJob::describe(std::uint64_t generation, const std::string& parent_id) {
  CheckpointIdentity& identity = record.identity;
  identity.save_id = request.save_id;
  identity.parent_id = parent_id;
  identity.generation = generation;
  identity.reason = request.reason;
  identity.epoch = request.epoch;
  identity.iter = request.iter;
  row.name = request.filename;
  row.directory = request.store->location();
  row.reason = request.reason;
  row.mode = stage_mode_name(request.mode);
  row.save_id = request.save_id;
  row.generation = generation;
  row.epoch = request.epoch;
  row.iter = request.iter;
}

}  // namespace millrace
