// Batches on their way to the device: pinned buffers that a loader fills while the copies of others
// run on a stream of their own, beside the steps.
//
//   loader thread   fill slot 0 | fill slot 1 | ..copied? fill slot 0 | ..copied? fill slot 1
//   copy-in stream         copy 0 | copy 1 | wait for used 0, copy 0 | wait for used 1, copy 1
//   train stream             wait, step 0, used 0 | wait, step 1, used 1 | wait, step 2, used 0
//
// A slot is a pinned buffer here and a destination on the device, which the caller has. It goes
// from next() to the loader, from there to the train thread by a queue of the caller's, and with
// put_in() back to next(): its buffer is filled again when its copy is through, its destination is
// written again when the train stream is through with the step that read it. The streams wait for
// that; the train thread never does.
//
// One loader thread and the train thread at a time, each with the calls listed under its name.
// A call that throws leaves the slot where it was: it may be made again.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>
#include <vector>

#include "millrace/runtime/async/task.h"
#include "millrace/runtime/device/device.h"
#include "millrace/runtime/device/pending_copy.h"
#include "millrace/runtime/device/pinned_buffer.h"

namespace millrace {

class CopyIn {
 public:
  // Every part of a batch (inputs, targets) begins at a multiple of it, here and on the device.
  static constexpr std::size_t kAlignment = 256;

  // Whoever holds it may use the batch's members; they change in next().
  class Slot {
   public:
    explicit Slot(Device& device) : buffer_(device), copied_(device), used_(device.make_event()) {}

    std::size_t index() const noexcept { return index_; }  // from 0: which destination is its
    std::size_t parts() const noexcept { return parts_.size(); }
    std::span<std::byte> part(std::size_t i) const;
    std::size_t offset(std::size_t i) const { return parts_[i].offset; }
    std::span<std::byte> bytes() const { return buffer_.bytes().first(size_); }  // all parts

   private:
    friend class CopyIn;
    struct Part {
      std::size_t offset, size;
    };
    bool lay_out(std::span<const std::size_t> part_bytes);

    std::size_t index_ = 0;
    PinnedBuffer buffer_;
    std::vector<Part> parts_;
    std::size_t size_ = 0;
    PendingCopy copied_;
    bool held_ = false;  // handed out; guarded by CopyIn's mutex

    // Train thread: the destination.
    const std::unique_ptr<DeviceEvent> used_;
    bool in_use_ = false, used_before_ = false;
  };

  // Makes the copy-in stream on the device of `train`, which outlives this.
  explicit CopyIn(DeviceStream& train, std::size_t slots = 2);
  // After drain(), or with nothing put in: see PendingCopy. The loader has ended.
  ~CopyIn() = default;
  CopyIn(const CopyIn&) = delete;
  CopyIn& operator=(const CopyIn&) = delete;

  // How large a destination is for a batch of these parts.
  static std::size_t bytes_for(std::span<const std::size_t> part_bytes);

  // Before training: pins as much for every slot, so that smaller batches pin nothing.
  void reserve(std::size_t bytes);

  // ---- Loader thread. The slot's buffer, with room for these parts; what is in it is undefined.
  // A batch that is larger than any before in this slot pins anew, which is slow. Both throw
  // DeviceError when the last copy from it failed, or pinning.

  // Blocks until the train thread has put a slot in and its copy is through. Null when stopped
  // while there is none.
  Slot* next(std::span<const std::size_t> part_bytes, const std::stop_token& stop);
  // Null when next() would block.
  Slot* try_next(std::span<const std::size_t> part_bytes);
  // What next() would block for, of a loader that gives its slots back before it asks: null when it
  // would not. Throws DeviceError.
  const DeviceEvent* pending();

  // Any thread that holds the slot: another batch instead, and the batch is not wanted.
  void lay_out(Slot& slot, std::span<const std::size_t> part_bytes);
  void give_back(Slot& slot);

  // ---- Train thread. None of these blocks.

  // Copies the slot to `to`, bytes() of device memory that no other slot has and the train stream
  // used for nothing but this slot's batches. What the train stream is given from now on runs after
  // the copy: so put a batch in when the step before it was given to the stream. Reusing a slot of
  // which used() was not called is a defect (std::logic_error).
  void put_in(Slot& slot, std::byte* to);
  // The train stream was given the last that reads the slot's destination.
  void used(Slot& slot);
  // Waits until no copy is under way, when the loader has ended. Throws the first DeviceError,
  // after all of them; see PendingCopy::settle().
  Task<> drain(EventWaiter& waiter);

  // Any thread. How often memory was pinned: it stands still in steady state.
  std::uint64_t pins() const noexcept { return pins_.load(std::memory_order_relaxed); }

 private:
  Slot* hand_out(Slot& slot, std::span<const std::size_t> part_bytes);
  void take_back(Slot& slot);

  DeviceStream& train_;
  const std::unique_ptr<DeviceStream> copies_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::atomic<std::uint64_t> pins_{0};

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<Slot*> free_;  // guarded by mutex_; first in, first out
};

}  // namespace millrace
