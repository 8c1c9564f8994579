#include "millrace/runtime/device/event_waiter.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/async/suspend.h"
#include "millrace/runtime/async/thread_name.h"

namespace millrace {
namespace {

using Clock = std::chrono::steady_clock;

Clock::duration pause_after(Clock::duration waited) {
  return std::clamp<Clock::duration>(waited / 16, std::chrono::microseconds(50),
                                     std::chrono::milliseconds(1));
}

}  // namespace

struct EventWaiter::Wait {
  const DeviceEvent& event;
  Clock::time_point since;
  std::exception_ptr error = nullptr;
  Resumption resume = {};
  Wait* next = nullptr;

  bool reached() noexcept {
    try {
      return event.done();
    } catch (...) {
      error = std::current_exception();
      return true;
    }
  }
  // The frame that holds this may be gone before it returns.
  void end() { std::exchange(resume, Resumption())(); }
};

void EventWaiter::Queue::push(Wait& wait) noexcept {
  wait.next = nullptr;
  (first == nullptr ? first : last->next) = &wait;
  last = &wait;
}

EventWaiter::Wait* EventWaiter::Queue::pop() noexcept {
  Wait* const wait = first;
  if (wait != nullptr) first = wait->next;
  return wait;
}

EventWaiter::EventWaiter()
    : thread_([this](const std::stop_token& stop) {
        name_this_thread("mr-events");
        run(stop);
      }) {}

EventWaiter::~EventWaiter() = default;  // a jthread asks to stop and joins

Task<> EventWaiter::wait(const DeviceEvent& event) {
  if (event.done()) co_return;
  Wait wait{event, Clock::now()};
  auto enqueue = [this, &wait](Resumption resume) {
    const std::scoped_lock lock(mutex_);
    wait.resume = std::move(resume);
    arrived_.push(wait);
    wake_.notify_one();
  };
  co_await suspend(enqueue);
  if (wait.error) std::rethrow_exception(std::exchange(wait.error, nullptr));
}

void EventWaiter::run(const std::stop_token& stop) {
  Queue waits;
  const auto take_arrived = [&] {
    while (Wait* const wait = arrived_.pop()) waits.push(*wait);
  };
  const auto arrived = [this] { return arrived_.first != nullptr; };
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    take_arrived();
    lock.unlock();
    waits = resume_reached(waits);
    lock.lock();
    if (waits.first == nullptr) {
      wake_.wait(lock, stop, arrived);
    } else {
      wake_.wait_for(lock, stop, pause_after(Clock::now() - waits.last->since), arrived);
    }
  }
  take_arrived();
  lock.unlock();
  while (Wait* const wait = waits.pop()) {
    wait->error = std::make_exception_ptr(
        Error("event waiter: destroyed while an event of the device was awaited"));
    wait->end();
  }
}

// Those that go on waiting.
EventWaiter::Queue EventWaiter::resume_reached(Queue waits) {
  Queue rest;
  while (Wait* const wait = waits.pop()) {
    if (wait->reached()) {
      wait->end();
    } else {
      rest.push(*wait);
    }
  }
  return rest;
}

}  // namespace millrace
