// The slices of a captured state: the unit of claiming, copying and waiting.
//
// A storage is cut into slices of 256 KiB, the 64 Ki float elements that an optimizer steps at
// once; a small storage is one slice, an empty one none. Slice ids count in the order of the file.
// Copying goes in the order in which the optimizer will write: slice k of a parameter, then slice k
// of each of its optimizer states, then slice k + 1 (CapturedStorage::group).
//
// For an arena that is a ring of blocks no slice crosses a block boundary of the file, and copying
// goes in the order of the file, because that is the order in which blocks become free.
//
// Immutable, so shared by all threads; kept from save to save while the captured memory is the same
// (describes()), so that a later save neither sorts nor allocates it anew.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "millrace/io/pth_layout.h"
#include "millrace/runtime/staging/captured_storage.h"

namespace millrace {

// Bytes [offset, offset + size) of a storage, which is file bytes from `file_offset`.
struct Slice {
  std::uint32_t storage = 0;
  std::uint32_t size = 0;
  std::uint64_t offset = 0;
  std::uint64_t file_offset = 0;
};

class SliceTable {
 public:
  static constexpr std::uint64_t kSliceBytes = std::uint64_t{256} << 10;

  // `block_bytes` is that of a ring, 0 for an arena that holds the whole file.
  explicit SliceTable(std::vector<CapturedStorage> storages, std::uint64_t block_bytes = 0);

  // Whether this is the table of that capture.
  bool describes(std::span<const CapturedStorage> storages, std::uint64_t block_bytes) const;

  const std::vector<CapturedStorage>& storages() const noexcept { return storages_; }
  const PthLayout& layout() const noexcept { return layout_; }
  std::uint64_t block_bytes() const noexcept { return block_bytes_; }

  std::size_t size() const noexcept { return slices_.size(); }
  const Slice& operator[](std::size_t id) const { return slices_[id]; }
  // The ids of storage i are [first(i), first(i + 1)).
  std::size_t first(std::size_t storage) const { return first_[storage]; }
  // Every id once, in the order in which slices are to be copied.
  std::span<const std::uint32_t> copy_order() const noexcept { return copy_order_; }

  // Calls visit(id) for each slice behind the gate that holds a byte of `memory`, until it returns
  // false; false when it did. Storages may overlap each other; all that hold the byte are visited.
  template <class Visit>
  bool each_in(std::span<const std::byte> memory, Visit visit) const {
    const std::byte* const end = memory.data() + memory.size();
    for (auto range = first_reaching(memory.data());
         range != by_address_.end() && range->first < end; ++range) {
      if (range->last <= memory.data() || memory.empty()) continue;
      const std::uint64_t from = offset_in(*range, memory.data());
      const std::uint64_t to = offset_in(*range, end);
      const std::size_t last = first_[range->storage + 1];
      for (std::size_t id = slice_at(range->storage, from); id < last; ++id) {
        if (slices_[id].offset >= to) break;
        if (!visit(id)) return false;
      }
    }
    return true;
  }

  // One behind the highest such id; 0 when there is none.
  std::size_t end_in(std::span<const std::byte> memory) const {
    std::size_t end = 0;
    each_in(memory, [&end](std::size_t id) {
      end = std::max(end, id + 1);
      return true;
    });
    return end;
  }

 private:
  struct LiveRange {  // sorted by `first`
    const std::byte* first;
    const std::byte* last;
    const std::byte* reach;  // the highest `last` of this and all earlier ranges
    std::size_t storage;
  };

  static std::uint64_t offset_in(const LiveRange& range, const std::byte* address) {
    return static_cast<std::uint64_t>(std::clamp(address, range.first, range.last) - range.first);
  }
  std::vector<LiveRange>::const_iterator first_reaching(const std::byte* address) const;
  std::size_t slice_at(std::size_t storage, std::uint64_t offset) const;
  void cut(std::size_t storage);
  void order_groups();
  void sort_by_address();

  std::vector<CapturedStorage> storages_;
  PthLayout layout_;
  std::uint64_t block_bytes_;
  std::vector<Slice> slices_;
  std::vector<std::size_t> first_;
  std::vector<std::uint32_t> copy_order_;
  std::vector<LiveRange> by_address_;
};

}  // namespace millrace
