// An arena in which snapshots take turns, with what is kept from one to the next.
//
// The shared_ptr that Staging::begin() returns is the lease: the slot is free once the last copy of
// it is gone. Staging's threads and the gate hold the snapshot itself and no lease; they may still
// be leaving it then, which the next begin() waits for.
#pragma once

#include <atomic>
#include <memory>

#include "millrace/runtime/staging/arena.h"
#include "millrace/runtime/staging/device_snapshot.h"
#include "millrace/runtime/staging/snapshot.h"

namespace millrace {

struct ArenaSlot {
  Arena arena;
  Arena side;                               // while streaming: copies of what is captured at once
  std::shared_ptr<const SliceTable> table;  // of the last capture; `arena` and `side` fit it
  std::shared_ptr<const DevicePlan> plan;   // of `table`, when it holds memory of a device
  DeviceSlot device;                        // for the plan
  std::weak_ptr<Snapshot> last;
  std::atomic<bool> leased{false};

  bool free() const noexcept { return !leased.load(std::memory_order_acquire); }
};

// Of a device, host memory is captured at once, too.
inline bool is_captured_at_once(const CapturedStorage& storage, bool of_device) {
  return storage.mutation == Mutation::kAnyTime || (of_device && !storage.on_device);
}

struct SlotBudget {
  std::uint64_t bytes = 0;  // for arena, side copies and packed storages of one slot; 0: no bound
  std::uint64_t block_bytes = 0;  // in which a state beyond it streams
  std::uint64_t slots = 1;        // that share the option's value; for the message
  bool of_device = false;
};

// Train thread, free slot: makes table and memory fit the capture, unless they do already. An arena
// for a whole file has room for the usual pickle and directory behind the storages, too. Memory for
// packed storages makes way for it where the budget does not hold both. Throws ConfigError when not
// even two blocks fit the budget, and Error when memory is refused.
void fit(ArenaSlot& slot, std::span<const CapturedStorage> storages, const SlotBudget& budget);
// The same before training, with room for `bytes_to_come` that later captures will have besides,
// and with memory to pack small storages of a device in, if the file fits the budget and that does,
// too. Throws DeviceError as well.
void fit_ahead(ArenaSlot& slot, std::span<const CapturedStorage> storages,
               std::uint64_t bytes_to_come, const SlotBudget& budget);

}  // namespace millrace
