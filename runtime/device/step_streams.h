// What a step needs of a device besides its kernels: the batch goes in, numbers and scores come
// out, and the host is never more than three steps ahead.
//
//   room()     pinned memory, which the loader fills
//   bring()    from there to a destination on the device; the train stream waits
//   (kernels)  on the train stream, by whoever has them
//   send()     a number of the step, to the pinned ring; read when it has arrived
//   used()     the destination may be overwritten when the stream gets here
//   fetch()    scores, to a pinned buffer; received() has them when pending() says nothing
//
// Memory of the device that is copied from belongs to the train stream: it may be given back and
// used again by later work of that stream, as LibTorch's allocator does, because the copies run on
// the same stream. Destinations are this class's own, and belong to the train stream as well.
//
// Train context; nothing blocks. Everything may throw DeviceError, after which the run ends, with
// drain() all the same.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "millrace/runtime/device/batch_memory.h"
#include "millrace/runtime/device/copy_in.h"
#include "millrace/runtime/device/device.h"
#include "millrace/runtime/device/pending_copy.h"
#include "millrace/runtime/device/pinned_buffer.h"
#include "millrace/runtime/device/readback.h"
#include "millrace/runtime/device/stream_timeline.h"

namespace millrace {

class StepStreams final : public BatchMemory {
 public:
  // How many numbers are kept, arrived or not: those of the newest tickets.
  static constexpr std::uint32_t kKept = 64;
  // How many spans are kept at least: many more than can end between two calls of spans().
  static constexpr std::size_t kKeptSpans = 4096;

  // `train` outlives it.
  explicit StepStreams(DeviceStream& train);
  // After drain(), or with nothing put in: see PendingCopy.
  ~StepStreams() = default;
  StepStreams(const StepStreams&) = delete;
  StepStreams& operator=(const StepStreams&) = delete;

  // Pinned memory for the next batch; empty until pending() says nothing. A batch larger than any
  // before pins anew.
  std::span<std::byte* const> room(std::span<const std::size_t> part_bytes) override;
  // Copies the parts of a batch; where each is on the device, until the next call. Parts that are
  // not in room() are copied there first, by this thread: pending() said nothing before
  // (std::logic_error). A batch larger than any before allocates.
  std::span<std::byte* const> bring(std::span<const std::span<const std::byte>> parts);
  // All work that reads the parts was put into the train stream.
  void used();

  // A float32 of the step, which is counted from 0.
  std::uint32_t send(const std::byte* from);
  // What has arrived; nothing while it is on its way, or when kKept later ones were sent.
  std::optional<float> number(std::uint32_t ticket) const;

  void fetch(const std::byte* from, std::size_t bytes);
  std::span<const std::byte> received() const;

  // What must be reached before the next room(), fetch() or received(), and before a bring() that
  // had no room(); null: nothing.
  const DeviceEvent* pending();
  // What must be reached before every number sent so far has arrived; null: nothing.
  const DeviceEvent* unread();

  // The optimizer's kernels were put in: the step is whole.
  void stepped();
  // When the train stream worked for each batch, from its kernels' beginning to stepped(), or to
  // used() of one that was only for fetch(). The newest that have ended, oldest first, by rising
  // numbers; recorded from the first call on. Valid until the next call.
  std::span<const StreamSpan> spans();

  // Until no copy is under way: after the last step. All numbers have arrived then, and spans() has
  // the last batch. Throws the first DeviceError, after all.
  Task<> drain(EventWaiter& waiter);

 private:
  Readback::Take keeps_numbers();
  bool is_in_room(std::span<const std::span<const std::byte>> parts) const;
  std::byte* destination(const CopyIn::Slot& slot, std::size_t bytes);

  DeviceStream& train_;
  CopyIn copy_in_;
  CopyIn::Slot* filling_ = nullptr;                          // of the batch in room()
  CopyIn::Slot* slot_ = nullptr;                             // of the batch that steps
  std::vector<std::unique_ptr<DeviceBuffer>> destinations_;  // by slot
  std::vector<std::unique_ptr<DeviceBuffer>> outgrown_;      // may still be read
  std::vector<std::size_t> sizes_;
  std::vector<std::byte*> room_, addresses_;

  Readback readback_;
  std::array<float, kKept> numbers_{};
  std::uint32_t sent_ = 0, arrived_ = 0;

  std::unique_ptr<StreamTimeline> timeline_;  // once somebody asked
  std::vector<StreamSpan> spans_;
  std::int64_t batches_ = 0;
  bool fetches_ = false;  // the batch that steps

  PinnedBuffer scores_;
  PendingCopy fetched_;
  std::size_t fetched_bytes_ = 0;
};

}  // namespace millrace
