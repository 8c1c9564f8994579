// A snapshot of host memory: threads copy it, slice by slice.
//
//   slice     unclaimed -> copying -> staged
//
// Whoever claims a slice (atomically) copies it: staging's threads in copying order, or the train
// thread at the gate, which helps with what it is about to write.
//
// While streaming, slices are claimed in the order of the file, under the mutex, and only those
// whose block is free.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "millrace/runtime/staging/snapshot.h"

namespace millrace {

class HostSnapshot final : public Snapshot {
 public:
  using Snapshot::Snapshot;
  // For tests: `layout` is that of the storages' sizes.
  HostSnapshot(std::vector<CapturedStorage> storages, const PthLayout& layout,
               std::span<std::byte> arena, CopyProbe probe);

  // Any thread: claims and copies a slice unless somebody did; true when this call copied it.
  // Not while streaming.
  bool copy_slice(std::size_t id);
  // The same for all slices of a storage; true when this call copied one.
  bool copy_part(std::size_t storage);

  void copy_unclaimed() override;
  void stage_all() override;
  void secure(std::span<const std::byte> memory) override;
  void secure_all() override;
  bool secured(std::span<const std::byte> memory) const override;
  std::uint32_t checksum(std::size_t id) const override { return checksums_[id]; }

 private:
  bool claim(std::size_t id);
  std::optional<std::size_t> claim_next();  // streaming, mutex_ held
  void copy_claimed(std::size_t id);
  void copy_through_ring();
  void secure_up_to(std::size_t end);
  void wait_slices(std::span<const std::byte> memory);

  std::atomic<std::size_t> cursor_{0};  // into copy_order()
  std::size_t next_ = 0;                // streaming: the first slice nobody claimed
  // By slice, taken in the copy.
  std::vector<std::uint32_t> checksums_ = std::vector<std::uint32_t>(slices().size());
};

}  // namespace millrace
