// Small results on their way to the host: a loss, a few scores. The step goes on; the host reads
// them iterations later, when they have arrived.
//
//   train thread    step n, push n | step n+1, push n+1 | take_ready: n | step n+2 ...
//   train stream         step n, copy n, event n | step n+1, copy n+1, event n+1 | ...
//
// A ring of pinned entries, each tagged with its iteration. The copy runs on the train stream, so
// that the next step may overwrite the result, and results arrive in the order of push().
//
// Lives on the train context, and no call blocks. A full ring means that the host is that many
// iterations ahead of its device: push() then refuses, and the caller takes what has arrived or
// awaits the oldest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <span>

#include "millrace/runtime/async/task.h"
#include "millrace/runtime/device/device.h"
#include "millrace/runtime/device/pending_copy.h"
#include "millrace/runtime/device/pinned_buffer.h"

namespace millrace {

class EventWaiter;  // runtime/device/event_waiter.h

struct ReadbackOptions {
  std::size_t capacity = 64;     // entries
  std::size_t entry_bytes = 64;  // at most, each
};

class Readback {
 public:
  // `result` is valid during the call, which must not push. What it throws passes through, and the
  // entry counts as taken.
  using Take = std::function<void(std::int64_t iter, std::span<const std::byte> result)>;

  // Pins its memory. `train` outlives it.
  explicit Readback(DeviceStream& train, ReadbackOptions options = {});
  // With the ring empty, as after drain(): see PendingCopy.
  ~Readback() = default;
  Readback(const Readback&) = delete;
  Readback& operator=(const Readback&) = delete;

  // Copies `bytes` of the device's memory, as the train stream's work so far leaves them. False,
  // and nothing is done, when the ring is full. After a DeviceError the result is lost, and is not
  // handed out; its entry is free again when the train stream has passed it. More than
  // `entry_bytes` is a std::logic_error.
  bool push(std::int64_t iter, const std::byte* from, std::size_t bytes);

  // Hands out what has arrived, in the order of push(), and says how many. Throws the DeviceError
  // of the work before a result, with its iteration; the result stays in the ring, so that after a
  // failure that is not sticky the next call asks again.
  std::size_t take_ready(const Take& take);

  // Reached when everything in the ring has arrived; null when it is empty. Throws DeviceError when
  // it had to be recorded.
  const DeviceEvent* newest();
  // Suspends until the oldest result has arrived, or returns at once without one. Throws as
  // take_ready() does, when three attempts failed; a result that is lost with its device is dropped
  // then.
  Task<> wait_oldest(EventWaiter& waiter);
  // Hands out everything, suspending for it: at the end of an epoch or a run. When the device is
  // lost it hands out what had arrived, drops the rest, and throws the first error at the end.
  Task<> drain(EventWaiter& waiter, Take take);

  // Entries in the ring, arrived or not, with those that failed and are still being waited for.
  std::size_t size() const noexcept { return count_; }

 private:
  struct Entry {
    explicit Entry(Device& device) : copied(device) {}
    PendingCopy copied;
    std::int64_t iter = 0;
    std::size_t bytes = 0;
    bool dropped = false;
  };
  Entry& oldest() { return entries_[first_]; }
  bool oldest_arrived();
  bool take_oldest(const Take& take);  // false: it was dropped

  DeviceStream& train_;
  const std::size_t entry_bytes_;
  PinnedBuffer memory_;
  std::deque<Entry> entries_;  // the ring
  std::size_t first_ = 0, count_ = 0;
};

}  // namespace millrace
