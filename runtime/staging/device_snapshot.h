// A snapshot of a device's memory: a stream of its own copies it, chunk by chunk, and an event
// follows each chunk.
//
//   train stream    step n | captured |......forward n+1......| wait for chunks | step n+1
//   copy stream              wait | chunk 0, event | chunk 1, event | ...
//   staging thread              puts chunks in, waits for their events: slices are staged
//   train thread                         at the gate: puts in what is not yet, then the wait
//
// A chunk of small storages is packed by a launch and copied to pinned memory beside the arena
// (pack_buffers.h); the staging thread brings its storages to their places when its event is done.
//
// The train *stream* waits at the gate, the train thread does not. What may change at any time
// comes first, and the train stream waits for it at once; host memory is copied in capture().
// An error of the device discards the snapshot, and is the reason; a chunk that could be put in
// only in part is waited for all the same, because its copies may be under way.
//
// While streaming, the train thread has to wait until there are blocks for what it is to write.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "millrace/runtime/device/device.h"
#include "millrace/runtime/staging/device_plan.h"
#include "millrace/runtime/staging/pack_buffers.h"
#include "millrace/runtime/staging/snapshot.h"

namespace millrace {

// What all snapshots of a device use together.
struct DeviceLane {
  explicit DeviceLane(DeviceStream& train);

  DeviceStream& train;
  std::unique_ptr<DeviceStream> copies;
  std::unique_ptr<DeviceEvent> captured;  // on `train`
};

// What one arena has for snapshots of a device; used by one snapshot at a time.
struct DeviceSlot {
  std::vector<std::unique_ptr<DeviceEvent>> chunks;  // grows
  std::unique_ptr<DeviceEvent> aside;                // behind the side copies
  PackBuffers pack;

  // Before the first snapshot of a plan that was made for pack.room().
  void fit(Device& device, const DevicePlan& plan);
};

class DeviceSnapshot final : public Snapshot {
 public:
  // `slot` fits the plan and outlives the snapshot, as `arena` and `side` do, which are pinned.
  // `side` holds what DevicePlan takes from side copies: while streaming only.
  DeviceSnapshot(std::shared_ptr<const DevicePlan> plan, std::span<std::byte> arena,
                 std::span<std::byte> side, SnapshotOptions options,
                 std::shared_ptr<DeviceLane> lane, DeviceSlot& slot);

  // Train thread, before anything else: fixes the point in the train stream whose state this is.
  void capture() noexcept;

  void copy_unclaimed() override;
  void stage_all() override;
  void secure(std::span<const std::byte> memory) override;
  void secure_all() override;
  bool secured(std::span<const std::byte> memory) const override;
  bool passed() const override;
  std::uint32_t checksum(std::size_t id) const override;

 private:
  bool put_in_next();
  void put_in(std::size_t chunk);
  void put_in_pack(const DevicePack& pack);
  bool wait_for_copies(const DeviceEvent* behind) noexcept;
  void complete(std::size_t chunk) noexcept;
  void bring_to_places(std::size_t chunk) noexcept;
  void copy_host_storages();
  void copy_aside();
  bool open(std::size_t chunk) const;  // mutex_ held
  void secure_up_to(std::size_t end);
  void wait_for_chunks(std::size_t end);
  void let_train_wait(std::size_t end);
  void ask_all() noexcept;

  const std::shared_ptr<const DevicePlan> plan_;
  const std::span<std::byte> side_;
  const std::shared_ptr<DeviceLane> lane_;
  DeviceSlot& slot_;
  std::vector<const std::byte*> sources_;  // into side_, by storage

  // Side copies that nobody has waited for yet; staging's thread, which starts after capture().
  bool aside_ = false, aside_recorded_ = false;

  std::mutex put_in_mutex_;               // who holds it may put the next chunk in
  std::atomic<std::size_t> put_in_{0};    // chunks
  std::atomic<std::size_t> sound_{0};     // of them, those that have their event
  std::atomic<std::size_t> complete_{0};  // written by the staging thread
  std::size_t passed_ = 0;                // train thread: chunks its stream waits for
};

}  // namespace millrace
