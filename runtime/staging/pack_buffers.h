// Where the small storages of a device are packed (runtime/device/pack.h) on their way into an
// arena: a buffer on the device, and pinned memory beside the arena.
//
//   storages --launch--> device buffer --copy--> pinned memory --memcpy--> arena
//
// Each arena has its own, used by one snapshot at a time. Several packs of one snapshot take turns
// in the device buffer, in the order of the one stream that packs and copies: pack, copy, pack,
// copy. In pinned memory each has its own place, because the staging thread reads it when it gets
// there.
//
// Reserved before training: a save makes no memory of the device, and frees none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "millrace/runtime/device/device.h"
#include "millrace/runtime/device/pack.h"
#include "millrace/runtime/staging/arena.h"
#include "millrace/runtime/staging/captured_storage.h"

namespace millrace {

// Storages up to this size are packed. For larger ones a copy of their own costs no more than their
// bytes do.
inline constexpr std::uint64_t kPackedStorage = std::uint64_t{64} << 10;
// Fewer are copied one by one.
inline constexpr std::size_t kLeastPacked = 4;

// What packing takes, or has. Nothing: all is copied one by one.
struct PackRoom {
  std::uint64_t bytes = 0;    // of all packed storages, each padded: pinned memory
  std::uint64_t at_once = 0;  // of one pack: the device buffer
  std::size_t pieces = 0;     // of the table

  std::uint64_t host_bytes() const noexcept;  // in whole pages, with the table
};

inline bool is_packed(const CapturedStorage& storage) {
  return storage.on_device && !storage.bytes.empty() && storage.bytes.size() <= kPackedStorage;
}
// Room for so many times these storages.
PackRoom pack_room(std::span<const CapturedStorage> storages, std::uint64_t times,
                   std::uint64_t at_once);

class PackBuffers {
 public:
  // While no snapshot uses them: drops everything. `device` outlives this.
  void pin_for(Device& device) noexcept;
  // Before training, while no snapshot uses them: makes them at least so large, or drops them where
  // no room is asked for. Throws Error, DeviceError.
  void reserve(const PackRoom& room);
  // Pinned memory goes, and nothing is packed from now on; the device buffer stays, because freeing
  // it would make the train thread wait.
  void release_host() noexcept;
  const PackRoom& room() const noexcept { return room_; }
  std::uint64_t host_bytes() const noexcept { return host_.bytes().size(); }

  // The table of a new plan, which fits the room. No snapshot uses the buffers.
  void load(std::span<const PackPiece> table);
  // The rest: by the snapshot that uses the buffers, one thread at a time.
  // Puts the copy of the table into the stream, if that was not done since load(). The stream's
  // later work has it; it counts as part of what the caller puts in next.
  void upload(DeviceStream& copies);
  std::span<const PackPiece> table(std::size_t first, std::size_t pieces) const;
  std::span<std::byte> device(std::uint64_t size) const {
    return device_buffer_->bytes().first(size);
  }
  std::span<std::byte> host(std::uint64_t at, std::uint64_t size) const {
    return host_.bytes().subspan(at, size);
  }

 private:
  Device* device_ = nullptr;
  PackRoom room_;
  Arena host_;  // what was packed, then the table
  std::unique_ptr<DeviceBuffer> device_buffer_, device_table_;
  std::size_t loaded_ = 0;  // pieces
  bool uploaded_ = false;
};

}  // namespace millrace
