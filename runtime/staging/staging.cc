#include "millrace/runtime/staging/staging.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "millrace/io/crc32.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/staging/host_snapshot.h"

namespace millrace {
namespace {

// A helper is woken for at least so many slices.
constexpr std::size_t kSlicesPerHelper = 4;
constexpr std::uint64_t kPage = 4096;

StagingOptions checked(StagingOptions options) {
  if (options.slots == 0) throw ConfigError("checkpoint.slots", "must be at least 1");
  if (options.block_bytes == 0 || options.block_bytes % kPage != 0) {
    throw ConfigError("checkpoint.block_bytes", "must be a multiple of 4096");
  }
  const char* const verify = std::getenv("MILLRACE_VERIFY_STAGING");
  options.verify |= verify != nullptr && std::string_view(verify) == "1";
  if (options.threads == 0) {
    options.threads = std::max(2U, std::thread::hardware_concurrency()) - 1;
  }
  return options;
}

// Copies what may change at any time into side memory; where each storage's bytes are to be read.
std::vector<const std::byte*> copy_aside(const SliceTable& table, std::span<std::byte> side) {
  const auto& storages = table.storages();
  std::vector<const std::byte*> sources(storages.size());
  for (std::size_t i = 0; i < storages.size(); ++i) {
    const auto bytes = storages[i].bytes;
    if (storages[i].mutation != Mutation::kAnyTime || bytes.empty()) continue;
    std::memcpy(side.data(), bytes.data(), bytes.size());
    sources[i] = side.data();
    side = side.subspan(bytes.size());
  }
  return sources;
}

void copy_at_capture(HostSnapshot& snapshot) {
  const SliceTable& table = snapshot.slices();
  for (std::size_t i = 0; i < table.storages().size(); ++i) {
    const CapturedStorage& storage = table.storages()[i];
    if (storage.mutation == Mutation::kAnyTime || storage.bytes.size() <= Staging::kSmall) {
      snapshot.copy_part(i);
    }
  }
}

// A thread that is just leaving the last snapshot may not see its arena change.
void wait_until_left(ArenaSlot& slot) {
  if (const auto last = slot.last.lock()) last->abandon("its save was given up");
}

void pin(ArenaSlot& slot, Device& device) {
  for (Arena* const arena : {&slot.arena, &slot.side}) {
    arena->release();
    arena->pin_for(device);
  }
  slot.device.pack.pin_for(device);
  slot.table.reset();
}

std::span<std::byte> arena_of(const ArenaSlot& slot) {
  const auto bytes = slot.arena.bytes();
  const std::uint64_t block = slot.table->block_bytes();
  return block > 0 ? bytes.first(bytes.size() / block * block) : bytes;
}

// The pointer whose last copy gives the slot back. Others hold `snapshot` itself.
std::shared_ptr<Snapshot> lease(std::shared_ptr<ArenaSlot> slot,
                                std::shared_ptr<Snapshot> snapshot) {
  Snapshot* const leased = snapshot.get();
  slot->leased.store(true, std::memory_order_relaxed);
  auto give_back = [slot = std::move(slot), snapshot = std::move(snapshot)](Snapshot*) {
    if (!snapshot->staged()) snapshot->discard("its save was given up");
    slot->leased.store(false, std::memory_order_release);
  };
  return {leased, std::move(give_back)};
}

}  // namespace

std::string_view stage_mode_name(StageMode mode) {
  switch (mode) {
    case StageMode::kAuto:
      return "auto";
    case StageMode::kLazy:
      return "lazy";
    case StageMode::kEager:
      return "eager";
    case StageMode::kBlocking:
      return "blocking";
  }
  return "auto";
}

StageMode parse_stage_mode(std::string_view name) {
  for (const StageMode mode :
       {StageMode::kAuto, StageMode::kLazy, StageMode::kEager, StageMode::kBlocking}) {
    if (stage_mode_name(mode) == name) return mode;
  }
  throw ConfigError("CheckpointHook.mode",
                    "unknown mode '" + std::string(name) + "'; valid: auto, lazy, eager, blocking",
                    nearest_name(name, {"auto", "lazy", "eager", "blocking"}));
}

Staging::Staging(StagingOptions options)
    : options_(checked(std::move(options))), threads_(options_.threads) {
  for (std::size_t i = 0; i < options_.slots; ++i) slots_.push_back(std::make_shared<ArenaSlot>());
}

Staging::~Staging() {
  for (const auto& slot : slots_) {
    const auto last = slot->last.lock();
    if (last && !last->staged()) last->discard("the run ended");
  }
}

std::shared_ptr<ArenaSlot> Staging::free_slot() const noexcept {
  const auto found =
      std::find_if(slots_.begin(), slots_.end(), [](const auto& slot) { return slot->free(); });
  return found != slots_.end() ? *found : nullptr;
}

SlotBudget Staging::slot_budget() const noexcept {
  SlotBudget share{0, options_.block_bytes, slots_.size(), lane_ != nullptr};
  if (options_.memory_budget > 0) {
    share.bytes = std::max<std::uint64_t>(1, options_.memory_budget / share.slots);
  }
  return share;
}

bool Staging::streams() const noexcept {
  return std::any_of(slots_.begin(), slots_.end(), [](const auto& slot) {
    return slot->table != nullptr && slot->table->block_bytes() > 0;
  });
}

std::uint64_t Staging::memory() const noexcept {
  std::uint64_t bytes = 0;
  for (const auto& slot : slots_) {
    bytes += slot->arena.bytes().size() + slot->side.bytes().size();
    bytes += slot->device.pack.host_bytes();
  }
  return bytes;
}

void Staging::attach(DeviceStream& train) {
  if (lane_ != nullptr && &lane_->train == &train) return;
  lane_ = std::make_shared<DeviceLane>(train);
  for (const auto& slot : slots_) pin(*slot, train.device());
}

void Staging::allow_two() {
  if (slots_.size() > 1) return;
  slots_.push_back(std::make_shared<ArenaSlot>());
  if (lane_ != nullptr) pin(*slots_.back(), lane_->train.device());
}

void Staging::reserve(std::span<const CapturedStorage> storages, std::uint64_t bytes_to_come) {
  for (const auto& slot : slots_) {
    if (!slot->free()) continue;
    wait_until_left(*slot);
    fit_ahead(*slot, storages, bytes_to_come, slot_budget());
  }
}

std::shared_ptr<Snapshot> Staging::begin(std::span<const CapturedStorage> storages, StageMode mode,
                                         std::shared_ptr<const CaptureWatch> watch) {
  gate_.writable_all();  // the last snapshot, should anybody have left it behind
  const auto slot = free_slot();
  if (slot == nullptr) {
    throw Error("every arena of staging holds a save that is still being written");
  }
  wait_until_left(*slot);
  fit(*slot, storages, slot_budget());
  SnapshotOptions snapshot_options = this->snapshot_options(*slot->table, std::move(watch));
  const auto snapshot = lane_ != nullptr ? stage_device(*slot, std::move(snapshot_options), mode)
                                         : stage_host(*slot, std::move(snapshot_options), mode);
  return lease(slot, snapshot);
}

SnapshotOptions Staging::snapshot_options(const SliceTable& table,
                                          std::shared_ptr<const CaptureWatch> watch) const {
  SnapshotOptions options;
  options.probe = options_.probe;
  options.watch = std::move(watch);
  if (!options_.verify) return options;
  for (const CapturedStorage& storage : table.storages()) {
    options.checksums.emplace_back();
    if (!storage.on_device) options.checksums.back() = crc32(storage.bytes);
  }
  return options;
}

std::shared_ptr<Snapshot> Staging::stage_host(ArenaSlot& slot, SnapshotOptions options,
                                              StageMode mode) {
  const bool streams = slot.table->block_bytes() > 0;
  if (streams) options.sources = copy_aside(*slot.table, slot.side.bytes());
  auto snapshot = std::make_shared<HostSnapshot>(slot.table, arena_of(slot), std::move(options));
  slot.last = snapshot;
  if (!streams) copy_at_capture(*snapshot);
  if (snapshot->finished()) return snapshot;
  if (mode == StageMode::kLazy || streams) {
    gate_.close_for(snapshot);
    threads_.start(snapshot, 1);
    return snapshot;
  }
  const std::size_t worthwhile = snapshot->slices().size() / kSlicesPerHelper;
  threads_.start(snapshot, static_cast<unsigned>(std::min<std::size_t>(worthwhile, 1024)));
  snapshot->stage_all();
  threads_.recall(*snapshot);
  return snapshot;
}

// One thread waits for the device, in every mode.
std::shared_ptr<Snapshot> Staging::stage_device(ArenaSlot& slot, SnapshotOptions options,
                                                StageMode mode) {
  if (!slot.plan || slot.plan->table() != slot.table) {
    auto plan =
        std::make_shared<DevicePlan>(slot.table, DevicePlan::kChunkBytes, slot.device.pack.room());
    slot.device.fit(lane_->train.device(), *plan);
    slot.plan = std::move(plan);
  }
  auto snapshot = std::make_shared<DeviceSnapshot>(slot.plan, arena_of(slot), slot.side.bytes(),
                                                   std::move(options), lane_, slot.device);
  slot.last = snapshot;
  snapshot->capture();
  if (snapshot->finished()) return snapshot;
  gate_.close_for(snapshot);
  threads_.start(snapshot, 1);
  if (mode != StageMode::kLazy && !snapshot->streams()) gate_.writable_all();
  return snapshot;
}

}  // namespace millrace
