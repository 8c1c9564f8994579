// The clock, as an interface: what decides by time (a save every ten minutes, one file kept per
// hour) is tested with a clock that stands still until it is told to move.
#pragma once

#include <chrono>
#include <cstdint>

namespace millrace {

class Clock {
 public:
  virtual ~Clock() = default;
  // Any thread. Never goes back.
  virtual std::chrono::steady_clock::time_point now() const = 0;
  // Nanoseconds since the Unix epoch: what is written into files.
  virtual std::int64_t unix_ns() const = 0;
};

class SystemClock final : public Clock {
 public:
  std::chrono::steady_clock::time_point now() const override {
    return std::chrono::steady_clock::now();
  }
  std::int64_t unix_ns() const override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
};

}  // namespace millrace
