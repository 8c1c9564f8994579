// When a stream worked, on the host's clock: pairs of timed events around pieces of work, read when
// both have been reached.
//
// The first event's time is that of the host when it was recorded, so the stream should be idle
// then, and all times are early by what the device took to get to it. Every later one is counted
// from the one before it, because a device measures short times well and long ones badly. Nothing
// blocks, and a piece that finds no free pair is left out.
//
// Train context. DeviceError as the stream and its events throw it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "millrace/runtime/device/device.h"

namespace millrace {

struct StreamSpan {
  std::int64_t number;  // as given to begin()
  std::chrono::steady_clock::time_point first, last;
};

class StreamTimeline {
 public:
  static constexpr std::size_t kInFlight = 16;

  // `stream` outlives it.
  explicit StreamTimeline(DeviceStream& stream);

  // What the stream is given between the two calls. Ends what is open.
  void begin(std::int64_t number);
  void end();

  // Appends what has come to its end, in order.
  void take(std::vector<StreamSpan>& spans);
  // What must be reached before take() has all that was ended; null: nothing.
  const DeviceEvent* newest() const;

 private:
  struct Pair {
    std::unique_ptr<DeviceEvent> first, last;
    std::int64_t number = 0;
  };
  Pair& at(std::size_t i) { return pairs_[i % kInFlight]; }
  const Pair& at(std::size_t i) const { return pairs_[i % kInFlight]; }
  std::chrono::steady_clock::time_point time_of(const DeviceEvent& event);

  DeviceStream& stream_;
  std::vector<Pair> pairs_;  // a ring
  std::size_t taken_ = 0, begun_ = 0;
  bool open_ = false;
  // The newest event whose time is known.
  std::unique_ptr<DeviceEvent> start_;
  const DeviceEvent* known_ = nullptr;
  std::chrono::steady_clock::time_point known_time_;
};

}  // namespace millrace
