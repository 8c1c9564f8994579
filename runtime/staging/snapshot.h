// A snapshot: one captured state on its way into an arena, slice by slice.
//
//   slice     live -> under way -> staged
//   snapshot  staging -> staged (every slice is)
//                     -> discarded (a writer went past the gate, or abandon() was called)
//
//   HostSnapshot    host memory: threads copy it, and the train thread helps at the gate
//   DeviceSnapshot  memory of a device: a stream copies it, and at the gate a stream waits
//
// A staged slice is final, and once every slice is staged live memory is never read again.
//
// The arena is laid out as the file: file byte b lies at arena byte b. A state that exceeds the
// memory budget *streams*: the arena is a ring of blocks of the file, slices are taken in the order
// of the file, each only when its block is free, and the file can be read once, front to back. Then
// the gate waits for the writer, too.
//
// Shared by the train thread, staging's threads and the I/O thread that writes the file. What lies
// around the slices is that thread's business (PthImage); the copy does not touch it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/staging/block_ring.h"
#include "millrace/runtime/staging/slice_table.h"

namespace millrace {

// No file can be made of a snapshot. what() is the reason: somebody wrote captured memory without
// passing the gate, or the save was given up.
class SnapshotDiscarded : public Error {
 public:
  using Error::Error;
};

struct SnapshotOptions {
  // For tests: called by whoever copies a slice of `storage`, before its first byte is copied.
  std::function<void(std::size_t storage)> probe = {};
  // Asked about each storage behind the gate when its last byte has been copied, or when a writer
  // comes to the gate for it, whichever is first.
  std::shared_ptr<const CaptureWatch> watch = {};
  // CRC-32 of every storage of host memory, taken at capture: the debug mode that finds raw writes.
  // Empty: off.
  std::vector<std::optional<std::uint32_t>> checksums = {};
  // What to read in place of the live memory of storage i; null: the live memory. Empty: none.
  std::vector<const std::byte*> sources = {};
};

class Snapshot {
 public:
  using CopyProbe = std::function<void(std::size_t storage)>;

  // `arena` outlives the snapshot. It holds layout().storages_end() bytes, or whole blocks of the
  // table's block_bytes(), at least two.
  Snapshot(std::shared_ptr<const SliceTable> table, std::span<std::byte> arena,
           SnapshotOptions options);
  virtual ~Snapshot() = default;
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  const SliceTable& slices() const noexcept { return *table_; }
  const PthLayout& layout() const noexcept { return table_->layout(); }
  std::size_t parts() const noexcept { return table_->storages().size(); }
  std::span<std::byte> arena() const noexcept { return arena_; }
  bool streams() const noexcept { return ring_.has_value(); }
  // Whether the bytes can be asked for a second time, to write the file again.
  bool rereadable() const noexcept { return !streams(); }

  bool staged() const noexcept { return staged_.load(std::memory_order_acquire) == table_->size(); }
  bool discarded() const noexcept { return discarded_.load(); }
  // Live memory will not be read any more.
  bool finished() const noexcept { return staged() || (discarded() && in_flight_.load() == 0); }
  std::string discard_reason() const;

  // One of staging's threads: copies until every slice is under way or the snapshot discarded;
  // blocks only while streaming, for the writer, and for what a device does.
  virtual void copy_unclaimed() = 0;
  // Any thread, not while streaming: the same, until finished().
  virtual void stage_all() = 0;
  // Any thread: blocks until finished().
  void wait_all();

  // The gate; train thread. Returns when what lies in `memory` may be written: every slice in it is
  // staged, or what will write it waits for that; at once when discarded, but for slices under way.
  // While streaming, everything before them in the file must be copied first, and a snapshot that
  // nobody writes is discarded (attach_writer()).
  virtual void secure(std::span<const std::byte> memory) = 0;
  virtual void secure_all() = 0;
  // Whether secure(memory) would return at once. Train thread, as the next one.
  virtual bool secured(std::span<const std::byte> memory) const = 0;
  // Whether secure() would return at once for all memory, from now on.
  virtual bool passed() const { return finished(); }

  // Any thread: gives the snapshot up. No further slice is copied; returns when the slices under
  // way are, so that live memory is not read any more. The first reason counts.
  void abandon(std::string reason);
  // The same without waiting.
  void discard(std::string reason) noexcept;

  // Somebody will read the slices to the end or abandon the snapshot: a thread that does not depend
  // on the train thread. Without one, nobody may wait for blocks to become free.
  void attach_writer();
  // I/O thread: blocks until the slice is staged. Throws SnapshotDiscarded.
  std::span<const std::byte> wait_slice(std::size_t id);
  // I/O thread: the CRC-32 of a staged slice.
  virtual std::uint32_t checksum(std::size_t id) const = 0;
  // I/O thread: file bytes before `offset` are not needed any more, so their blocks are free.
  void release(std::uint64_t offset);
  // I/O thread: fills in file bytes that no slice covers. False when the arena has no room there.
  bool fill(std::uint64_t offset, std::span<const std::byte> bytes);
  // I/O thread: file bytes [first, last), or fewer when the arena ends or begins anew before.
  std::span<const std::byte> piece(std::uint64_t first, std::uint64_t last) const;
  // I/O thread: the checksum of a staged storage, held against the one taken at capture.
  void compare(std::size_t storage, std::uint32_t checksum);
  void throw_if_discarded() const;

  // When the last slice was staged; the clock's epoch before.
  std::chrono::steady_clock::time_point staged_at() const;
  // Time the train thread spent at the gate for this snapshot. Train thread only.
  std::chrono::nanoseconds gate_time() const noexcept { return gate_time_; }
  void add_gate_time(std::chrono::nanoseconds spent) noexcept { gate_time_ += spent; }

 protected:
  enum State : std::uint8_t { kUnclaimed, kCopying, kStaged };

  // Between enter() and leave() a thread, or a device on its behalf, reads live memory. False, and
  // nothing may be read, when the snapshot was discarded.
  bool enter() noexcept;
  void leave() noexcept;
  // The slice has been copied; asks the watch when it was the last one of its storage.
  void settle(std::size_t id) noexcept;
  // Asks the watch about a storage behind the gate, unless that was done; about all storages in
  // `memory`, because a writer passes, and their versions may move from then on.
  void ask_watch(std::size_t storage) noexcept;
  void ask_watch_in(std::span<const std::byte> memory) noexcept;
  // A writer waits for a block that only a writer of the file can free, and there is none, and the
  // train thread may be what would have started it.
  void discard_for_want_of_writer();

  const SnapshotOptions& options() const noexcept { return options_; }
  std::uint64_t place(std::uint64_t offset) const { return ring_ ? ring_->place(offset) : offset; }
  std::span<std::byte> room(const Slice& slice) const {
    return arena_.subspan(place(slice.file_offset), slice.size);
  }
  // Where the bytes of a slice are to be read.
  const std::byte* source(const Slice& slice) const;
  bool is_staged(std::size_t id) const {
    return states_[id].load(std::memory_order_acquire) == kStaged;
  }

  std::vector<std::atomic<std::uint8_t>> states_;  // by slice

  mutable std::mutex mutex_;  // guards what follows, and the sleep of waiters
  std::condition_variable changed_;
  std::optional<BlockRing> ring_;  // whether there is one never changes
  std::size_t prefix_ = 0;         // streaming: every slice before it is staged
  bool has_writer_ = false;

 private:
  const std::shared_ptr<const SliceTable> table_;
  const std::span<std::byte> arena_;
  const SnapshotOptions options_;
  std::vector<std::atomic<std::uint32_t>> unstaged_;  // slices left, by storage
  std::atomic<std::size_t> staged_{0};
  std::atomic<std::size_t> in_flight_{0};  // between enter() and leave()
  std::atomic<bool> discarded_{false};
  std::chrono::nanoseconds gate_time_{0};
  std::string reason_;                               // guarded by mutex_
  std::chrono::steady_clock::time_point staged_at_;  // guarded by mutex_

  std::mutex watch_mutex_;           // held while the watch is asked
  std::vector<std::uint8_t> asked_;  // guarded by watch_mutex_, by storage
};

}  // namespace millrace
