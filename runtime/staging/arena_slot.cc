#include "millrace/runtime/staging/arena_slot.h"

#include <algorithm>
#include <string>
#include <utility>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

// What a pickle takes: something for the run, and for each tensor its name, sizes and strides.
constexpr std::uint64_t kTailBase = std::uint64_t{64} << 10;
constexpr std::uint64_t kTailPerStorage = 256;
// States that an optimizer has for a parameter, at most; each brings headers and a directory entry.
constexpr std::uint64_t kStatesPerStorage = 3;
constexpr std::uint64_t kAroundStatesPerStorage = kStatesPerStorage * 512;
constexpr std::uint64_t kPage = 4096;

std::uint64_t side_bytes(std::span<const CapturedStorage> storages, bool of_device) {
  std::uint64_t bytes = 0;
  for (const CapturedStorage& storage : storages) {
    if (is_captured_at_once(storage, of_device)) bytes += storage.bytes.size();
  }
  return (bytes + kPage - 1) / kPage * kPage;
}

std::string mebibytes(std::uint64_t bytes) {
  return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}

// What the file of such a state takes with everything around the storages.
std::uint64_t whole_file_bytes(const PthLayout& layout) {
  const std::uint64_t pickle = kTailBase + kTailPerStorage * layout.storages();
  const std::uint64_t bytes = layout.storages_end() + layout.tail_size(pickle, {});
  return (bytes + kPage - 1) / kPage * kPage;
}

// As many whole blocks as the budget allows beside the copies.
std::uint64_t ring_bytes(std::uint64_t side, const SlotBudget& budget) {
  const std::uint64_t blocks = budget.bytes > side ? (budget.bytes - side) / budget.block_bytes : 0;
  if (blocks >= 2) return blocks * budget.block_bytes;
  const std::uint64_t least = budget.slots * (side + 2 * budget.block_bytes);
  throw ConfigError("checkpoint_memory_budget",
                    "is too small for this state: the least is " + std::to_string(least) +
                        " bytes (" + mebibytes(least) + "), two blocks of " +
                        std::to_string(budget.block_bytes) + " bytes and " + std::to_string(side) +
                        " bytes of copies for each of " + std::to_string(budget.slots) +
                        " arena(s)");
}

void fit_ring(ArenaSlot& slot, std::span<const CapturedStorage> storages,
              const SlotBudget& budget) {
  const std::uint64_t side = side_bytes(storages, budget.of_device);
  const std::uint64_t ring = ring_bytes(side, budget);
  slot.device.pack.release_host();
  if (slot.side.bytes().size() > side) slot.side.release();
  if (slot.arena.bytes().size() > ring) slot.arena.release();
  if (side > 0) slot.side.reserve(side);
  slot.arena.reserve(ring);
  slot.table = std::make_shared<SliceTable>(
      std::vector<CapturedStorage>(storages.begin(), storages.end()), budget.block_bytes);
}

// Slower calls are better than a state that streams, so packing takes only what is left.
void fit_packing(ArenaSlot& slot, std::span<const CapturedStorage> storages, std::uint64_t times,
                 const SlotBudget& budget) {
  PackRoom room;
  if (slot.table->block_bytes() == 0) room = pack_room(storages, times, DevicePlan::kChunkBytes);
  const std::uint64_t bytes = slot.arena.bytes().size() + room.host_bytes();
  slot.device.pack.reserve(budget.bytes > 0 && bytes > budget.bytes ? PackRoom{} : room);
  slot.plan.reset();  // made for the room there was
}

}  // namespace

void fit(ArenaSlot& slot, std::span<const CapturedStorage> storages, const SlotBudget& budget) {
  if (slot.table && slot.table->describes(storages, slot.table->block_bytes())) return;
  auto table =
      std::make_shared<SliceTable>(std::vector<CapturedStorage>(storages.begin(), storages.end()));
  const std::uint64_t whole = whole_file_bytes(table->layout());
  if (budget.bytes > 0 && whole > budget.bytes) return fit_ring(slot, storages, budget);
  slot.side.release();
  const std::uint64_t arena = std::max<std::uint64_t>(whole, slot.arena.bytes().size());
  if (budget.bytes > 0 && arena + slot.device.pack.host_bytes() > budget.bytes) {
    slot.device.pack.release_host();
  }
  slot.arena.reserve(whole);
  slot.table = std::move(table);
}

void fit_ahead(ArenaSlot& slot, std::span<const CapturedStorage> storages,
               std::uint64_t bytes_to_come, const SlotBudget& budget) {
  fit(slot, storages, budget);
  if (bytes_to_come > 0 && slot.table->block_bytes() == 0) {
    const std::uint64_t around = storages.size() * kAroundStatesPerStorage;
    const std::uint64_t whole = whole_file_bytes(slot.table->layout()) + bytes_to_come + around;
    if (budget.bytes > 0 && whole > budget.bytes) {
      slot.arena.reserve(ring_bytes(side_bytes(storages, budget.of_device), budget));
    } else {
      slot.arena.reserve(whole);
    }
  }
  if (!budget.of_device) return;
  fit_packing(slot, storages, bytes_to_come > 0 ? 1 + kStatesPerStorage : 1, budget);
}

}  // namespace millrace
