// Awaiting a device: a coroutine goes on when an event has been reached, and its thread does other
// things meanwhile.
//
//   co_await waiter.wait(*event);
//
// One thread for all waits, whatever their number and streams. It asks each event whether it is
// done and never blocks in one, because a thread that blocks in a slow stream's event cannot be
// told of a fast one's. So a wait
//
//   - is held back by no other wait, stream or device
//   - ends after its event by at most a pause: a sixteenth of the time that the youngest wait has
//     taken so far, 50 us at least and 1 ms at most
//
// Waits whose events are found done together are resumed in the order in which they were asked for.
// With no wait the thread sleeps.
//
// Owned by whoever owns the device; any thread may use it. It goes before the executors of those
// that wait. Its destructor takes no longer than one look at each event, also on a device that is
// lost or busy: what still waits then is resumed with an Error.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "millrace/runtime/async/task.h"
#include "millrace/runtime/device/device_event.h"

namespace millrace {

class EventWaiter {
 public:
  EventWaiter();
  ~EventWaiter();
  EventWaiter(const EventWaiter&) = delete;
  EventWaiter& operator=(const EventWaiter&) = delete;

  // Any executor that suspend() allows. Returns at once, without leaving it, when the event is
  // done; otherwise resumes there by a post. Throws what DeviceEvent::done() throws: a DeviceError
  // when the work before the event failed or the device is lost, a std::logic_error for an event
  // never recorded. After an error that is not sticky the point may still lie ahead.
  //
  // The event belongs to who awaits and outlives the wait, which nothing ends but the event, an
  // error and the waiter's destruction: Asio cancellation does not reach it. Recorded anew
  // meanwhile, it is waited for at its later point.
  Task<> wait(const DeviceEvent& event);

 private:
  struct Wait;
  // In order of arrival. The entries lie in the frames of those that wait.
  struct Queue {
    Wait* first = nullptr;
    Wait* last = nullptr;
    void push(Wait& wait) noexcept;
    Wait* pop() noexcept;
  };

  void run(const std::stop_token& stop);
  static Queue resume_reached(Queue waits);

  std::mutex mutex_;
  std::condition_variable_any wake_;
  Queue arrived_;  // guarded by mutex_; those the thread has not seen
  std::jthread thread_;
};

}  // namespace millrace
