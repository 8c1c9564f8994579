// Which copies bring a device's memory into an arena, in which order, and after which of them
// waiters are notified.
//
//   copy    a run of slices that lie one behind the other in memory and in the arena: one call
//   pack    small storages together, gathered on the device: one launch and one call
//   chunk   copies of about 8 MiB together, or one pack, with an event behind it
//
// The order is that of the file, but for storages that may change at any time: they come
// first, because the next step waits for them. Among either kind the packs come first: they take
// little time, and the gate opens for many storages at once. While streaming they and all host
// memory come from side copies, in the order of the file, and no chunk crosses a block. Otherwise
// host memory is not in the plan: it is copied at capture.
//
// Immutable; kept from save to save with its table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "millrace/runtime/device/pack.h"
#include "millrace/runtime/staging/pack_buffers.h"
#include "millrace/runtime/staging/slice_table.h"

namespace millrace {

struct DeviceCopy {
  std::uint32_t first_slice = 0, end_slice = 0;  // ids
  std::uint64_t size = 0;
  bool from_side = false;
  std::uint64_t packed_at = 0;  // of a pack: where it comes, counted from there
};

// What is packed by one launch. Its storages are the copies of the chunk, one slice each.
struct DevicePack {
  std::size_t first_piece = 0, pieces = 0;  // of the plan's table; none: the chunk is no pack
  std::uint64_t at = 0, size = 0;           // in the memory of all packs
};

class DevicePlan {
 public:
  static constexpr std::uint64_t kChunkBytes = std::uint64_t{8} << 20;
  static constexpr std::uint32_t kNone = UINT32_MAX;

  // Packs what there is room for, in the order of the file.
  explicit DevicePlan(std::shared_ptr<const SliceTable> table,
                      std::uint64_t chunk_bytes = kChunkBytes, const PackRoom& room = {});

  const std::shared_ptr<const SliceTable>& table() const noexcept { return table_; }
  std::size_t chunks() const noexcept { return chunks_.size(); }
  std::span<const DeviceCopy> chunk(std::size_t i) const;
  const DevicePack& pack(std::size_t chunk) const { return chunks_[chunk].pack; }
  // The pieces of all packs.
  std::span<const PackPiece> pieces() const noexcept { return pieces_; }
  // The chunk that holds a slice, or kNone.
  std::uint32_t chunk_of(std::size_t slice) const { return chunk_of_[slice]; }
  // File bytes before this have a place once the chunk has been copied.
  std::uint64_t file_end(std::size_t chunk) const;
  // So many chunks come first: the storages that may change at any time.
  std::size_t any_time_chunks() const noexcept { return any_time_chunks_; }

 private:
  struct Chunk {
    std::size_t end = 0;  // into copies_
    DevicePack pack;
  };

  void add_all(Mutation mutation, const PackRoom& room);
  void pack_all(Mutation mutation, const PackRoom& room);
  void add_packed(std::size_t slice, const PackRoom& room);
  void add_through_ring();
  void add(std::size_t slice, bool from_side);
  void close_chunk();

  std::shared_ptr<const SliceTable> table_;
  std::uint64_t chunk_bytes_;
  std::vector<DeviceCopy> copies_;
  std::vector<Chunk> chunks_;
  std::vector<PackPiece> pieces_;
  std::vector<std::uint32_t> chunk_of_;
  std::uint64_t packed_bytes_ = 0;  // by all packs
  std::uint64_t open_bytes_ = 0;    // in the chunk being made
  DevicePack open_pack_;            // the same
  std::size_t any_time_chunks_ = 0;
};

}  // namespace millrace
