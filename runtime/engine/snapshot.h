// A snapshot: one captured state on its way into the arena, part by part.
//
//   part i = captured storage i, at PthLayout::data_offset(i) of the arena, which is laid out as
//   the file. state: unclaimed -> copying -> staged. Whoever claims a part (atomically) copies it:
//   the copier thread in file order, or the train thread at the gate. Its CRC-32 and zip header are
//   written with it, so a staged part is final.
//
// Shared by the train thread, the copier and the I/O thread that writes the file. Once every part
// is staged, live memory is never read again.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "millrace/io/pth_layout.h"
#include "millrace/runtime/engine/strategy.h"

namespace millrace {

class Snapshot {
 public:
  // For tests: called by whoever claimed `part`, before its first byte is copied.
  using CopyProbe = std::function<void(std::size_t part)>;

  // `arena` holds at least layout.storages_end() bytes and outlives the snapshot.
  Snapshot(std::vector<CapturedStorage> storages, PthLayout layout, std::span<std::byte> arena,
           CopyProbe probe);

  const PthLayout& layout() const noexcept { return layout_; }
  std::size_t parts() const noexcept { return storages_.size(); }
  bool staged() const noexcept { return staged_.load(std::memory_order_acquire) == parts(); }

  // Any thread: claims and copies part i unless somebody did; true when this call copied it.
  bool copy_part(std::size_t i);
  // Any thread: copies every part nobody has claimed.
  void copy_unclaimed();
  // Any thread: blocks until part i is staged.
  void wait_part(std::size_t i);
  void wait_all();
  // Copies what is unclaimed and waits for the rest of the parts that lie in `memory`.
  void secure(std::span<const std::byte> memory);
  void secure_all();

  // I/O thread: blocks until file bytes [first, last) of the storages part are staged.
  std::span<const std::byte> wait_bytes(std::uint64_t first, std::uint64_t last);
  // The CRC-32 of every part; only once staged().
  const std::vector<std::uint32_t>& crcs() const noexcept { return crcs_; }
  std::span<std::byte> arena() const noexcept { return arena_; }

  // When the last part was staged; the clock's epoch before.
  std::chrono::steady_clock::time_point staged_at() const;
  // Time the train thread spent at the gate for this snapshot. Train thread only.
  std::chrono::nanoseconds gate_time() const noexcept { return gate_time_; }
  void add_gate_time(std::chrono::nanoseconds spent) noexcept { gate_time_ += spent; }

 private:
  enum State : std::uint8_t { kUnclaimed, kCopying, kStaged };
  struct LiveRange {  // sorted by address; ranges of different parts do not overlap
    const std::byte* first;
    const std::byte* last;
    std::size_t part;
  };

  const std::vector<CapturedStorage> storages_;
  const PthLayout layout_;
  const std::span<std::byte> arena_;
  const CopyProbe probe_;
  std::vector<LiveRange> by_address_;
  std::vector<std::atomic<std::uint8_t>> states_;
  std::vector<std::uint32_t> crcs_;  // entry i is written before part i becomes staged
  std::atomic<std::size_t> staged_{0};
  std::chrono::nanoseconds gate_time_{0};

  mutable std::mutex mutex_;  // guards staged_at_, and the sleep of waiters
  std::condition_variable changed_;
  std::chrono::steady_clock::time_point staged_at_;
};

}  // namespace millrace
