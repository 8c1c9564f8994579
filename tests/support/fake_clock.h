// A clock that stands still until it is told to move. Any thread.
#pragma once

#include <atomic>

#include "millrace/runtime/async/clock.h"

namespace millrace::test {

class FakeClock final : public Clock {
 public:
  std::chrono::steady_clock::time_point now() const override {
    return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(ns_.load()));
  }
  std::int64_t unix_ns() const override { return ns_.load(); }
  void advance(std::chrono::nanoseconds by) { ns_ += by.count(); }

 private:
  std::atomic<std::int64_t> ns_{1'000'000'000};
};

}  // namespace millrace::test
