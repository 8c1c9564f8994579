// Staging: copies captured state out of live memory while training goes on. One per runner; owns
// the arenas, the threads that copy, and the gate.
//
//   lazy      begin() returns at once; one thread copies, and the gate stands before every writer
//   eager     begin() copies, with a thread for every core
//   blocking  the same; the caller then waits for the file, too
//
// All calls belong to the train context. A state that exceeds the memory budget streams through a
// small arena whatever the mode: begin() returns at once, and the gate is closed until the file has
// been written but for its last blocks (Snapshot::streams()).
//
// Of a strategy on a device, attach(): the arenas are pinned, a stream copies, and at the gate the
// train stream waits in place of the train thread. Then lazy and eager differ in when that is: at
// the gate, or at once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "millrace/runtime/staging/arena_slot.h"
#include "millrace/runtime/staging/copier_threads.h"
#include "millrace/runtime/staging/device_snapshot.h"
#include "millrace/runtime/staging/snapshot.h"
#include "millrace/runtime/staging/state_gate.h"

namespace millrace {

// When the copy happens. kAuto: eager where the step's threads take every core, else lazy.
enum class StageMode : std::uint8_t { kAuto, kLazy, kEager, kBlocking };

std::string_view stage_mode_name(StageMode mode);
StageMode parse_stage_mode(std::string_view name);  // throws ConfigError with the nearest name

struct StagingOptions {
  // Arenas, so snapshots that can exist at once: 1, or 2 for a newest-wins place beside the save
  // that is being written.
  std::size_t slots = 1;
  // Bytes that all arenas may take together, with what lies beside them; 0: what the state needs.
  // Pickle and directory are not counted: the save itself holds them. Nor is the memory of a device
  // in which small storages are packed, for each arena 8 MiB at most and a table.
  std::uint64_t memory_budget = 0;
  // The blocks in which a state streams; best those in which the storage writes
  // (WriteOptions::block_bytes). A multiple of 4096.
  std::uint64_t block_bytes = std::uint64_t{8} << 20;
  // A debug mode for finding writers that pass no gate and move no version: the train thread takes
  // a checksum of every storage at capture, and what was copied is held against it. Also switched
  // on by MILLRACE_VERIFY_STAGING=1 in the environment.
  bool verify = false;
  // Threads of staging's own; 0: one less than there are cores, at least one.
  unsigned threads = 0;
  Snapshot::CopyProbe probe = {};  // tests only
};

class Staging {
 public:
  // Throws ConfigError.
  explicit Staging(StagingOptions options = {});
  // Discards what is not staged and joins the threads. Live memory may go after it.
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // Before reserve(): state lies on the device of this stream, which runs the steps and outlives
  // staging. Throws DeviceError. Again with the same stream: nothing.
  void attach(DeviceStream& train);
  // Before training: a second arena, if there is only one.
  void allow_two();
  // Before training: makes the arenas fit such a state, and `bytes_to_come` more that its optimizer
  // will have later, so that the first save costs no more than later ones. Only what was reserved
  // here packs small storages of a device; without it they are copied one by one. Throws
  // ConfigError when the memory budget is too small for it, and DeviceError.
  void reserve(std::span<const CapturedStorage> storages, std::uint64_t bytes_to_come = 0);

  // Whether the state exceeds the memory budget; known from reserve() on.
  bool streams() const noexcept;
  // Whether begin() has an arena: fewer snapshots than arenas are still held by their owners.
  bool has_free_slot() const noexcept { return free_slot() != nullptr; }

  // Starts copying, `mode` being any but kAuto. Secures an older snapshot first that is still being
  // staged. Storages that may change at any time, and small ones, are copied before it returns in
  // every mode. The live memory must stay valid until the snapshot is finished(). Throws Error when
  // no slot is free; what it returns holds one until the last copy of it is gone, which discards
  // what is not staged by then.
  std::shared_ptr<Snapshot> begin(std::span<const CapturedStorage> storages, StageMode mode,
                                  std::shared_ptr<const CaptureWatch> watch = nullptr);

  StateGate& gate() noexcept { return gate_; }
  // What arenas, copies and packed storages take on the host; with a memory budget never more than
  // that.
  std::uint64_t memory() const noexcept;

  // Storages up to this size are copied at capture: cheaper than waking anybody.
  static constexpr std::uint64_t kSmall = 16 << 10;

 private:
  std::shared_ptr<ArenaSlot> free_slot() const noexcept;
  SlotBudget slot_budget() const noexcept;
  SnapshotOptions snapshot_options(const SliceTable& table,
                                   std::shared_ptr<const CaptureWatch> watch) const;
  std::shared_ptr<Snapshot> stage_host(ArenaSlot& slot, SnapshotOptions options, StageMode mode);
  std::shared_ptr<Snapshot> stage_device(ArenaSlot& slot, SnapshotOptions options, StageMode mode);

  const StagingOptions options_;
  std::vector<std::shared_ptr<ArenaSlot>> slots_;
  std::shared_ptr<DeviceLane> lane_;  // null: the state lies on the host
  StateGate gate_;
  CopierThreads threads_;  // last member: starts when the rest exists
};

}  // namespace millrace
