// A point in a stream's work, which others can wait for.
//
//   stream.record(event)     the event stands for all that the stream was given so far
//   other.wait_for(event)    other does nothing further before that; the host goes on
//   event.wait()             the host thread blocks until then
//
// Recording again makes it stand for a later point; waits asked for earlier keep theirs. A wait for
// an event that was never recorded is a defect of the caller (std::logic_error), because a device
// would let it pass.
#pragma once

#include <chrono>
#include <cstdint>

namespace millrace {

// Timing costs the device a little, so that only those that are asked for their time have it.
enum class EventUse : std::uint8_t { kOrder, kTiming };

class DeviceEvent {
 public:
  virtual ~DeviceEvent() = default;
  // Any thread. Whether that point has been reached; throws DeviceError when the work before it
  // failed.
  virtual bool done() const = 0;
  // Any thread but the train thread, which must never wait for its device. Blocks until the point
  // has been reached, without spinning. Throws DeviceError, also when the device is lost: it never
  // hangs on one.
  virtual void wait() const = 0;
  // How much later this point was reached than `earlier`, of the same device. Both are for timing
  // (std::logic_error) and done(). Throws DeviceError. Half a microsecond exact over short times.
  virtual std::chrono::nanoseconds since(const DeviceEvent& earlier) const = 0;
};

}  // namespace millrace
