// A copy that was put into a stream, and the event behind it: whether its host memory may be
// touched.
//
// It also knows a copy of which nobody can say whether it is under way, because a call failed
// between the copy and its event. The event is then recorded later, behind whatever there is.
//
// Part of what owns the memory; used by one thread at a time. Await settle() before destroying it:
// a copy that may still be under way then is waited for there, blocking, because the device would
// go on writing to memory that is somebody else's.
#pragma once

#include <memory>

#include "millrace/runtime/async/task.h"
#include "millrace/runtime/device/device.h"

namespace millrace {

class EventWaiter;  // runtime/device/event_waiter.h

class PendingCopy {
 public:
  explicit PendingCopy(Device& device) : event_(device.make_event()) {}
  ~PendingCopy();
  PendingCopy(const PendingCopy&) = delete;
  PendingCopy& operator=(const PendingCopy&) = delete;

  // Before and after the copy is put into `stream`, which outlives it.
  void begin(DeviceStream& stream) noexcept;
  void end() { event(); }

  // As far as it was asked.
  bool under_way() const noexcept { return under_way_; }
  // Reached when the copy is through. Records it when that is not done yet.
  const DeviceEvent& event();

  // Whether the copy is through, or there is none. Never blocks. Throws DeviceError, and the copy
  // still counts as under way.
  bool done();
  // The same, blocking: never on the train thread.
  void wait();
  // The same, suspending. A call that fails is tried three times; a device that is lost copies
  // nothing further, so that afterwards the copy is through, whatever is thrown for it.
  Task<> settle(EventWaiter& waiter);

 private:
  const std::unique_ptr<DeviceEvent> event_;
  DeviceStream* stream_ = nullptr;
  bool under_way_ = false, recorded_ = false;
};

}  // namespace millrace
