// A stream of CpuDevice: a thread that runs what it is given, in order.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string_view>
#include <thread>

#include "millrace/runtime/device/device_event.h"
#include "millrace/runtime/device/device_stream.h"

namespace millrace {

class CpuDevice;  // runtime/device/cpu_device.h

class CpuStream final : public DeviceStream {
 public:
  CpuStream(CpuDevice& device, std::uint32_t seed);
  // Runs what was put in, and joins.
  ~CpuStream() override;

  Device& device() const noexcept override;
  void record(DeviceEvent& event) override;
  void wait_for(const DeviceEvent& event) override;
  void copy_to_host(std::span<std::byte> to, const std::byte* from) override;
  void copy_to_device(std::byte* to, std::span<const std::byte> from) override;
  void pack(std::span<std::byte> to, std::span<const PackPiece> table) override;
  void synchronize() override;

  // What a kernel is on a GPU. Must not throw and must not wait for this stream.
  void launch(std::function<void()> kernel);

 private:
  struct Operation {
    std::string_view name;
    std::function<void()> run;
    bool always = false;  // also on a device that has failed: others wait for it
  };
  void put(Operation operation);
  void run(const std::stop_token& stop);
  void run_one(const Operation& operation);
  void require_pinned(std::string_view call, std::span<const std::byte> memory) const;
  void require_allocated(std::string_view call, std::span<const std::byte> memory) const;

  CpuDevice& device_;
  std::minstd_rand random_;  // of the thread
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::deque<Operation> queue_;  // guarded by mutex_
  std::jthread thread_;
};

// What an event stands for: a point in a stream, reached or not. Each record makes a new one.
class CpuEvent final : public DeviceEvent {
 public:
  explicit CpuEvent(const CpuDevice& device, EventUse use = EventUse::kOrder)
      : device_(device), use_(use) {}
  bool done() const override;
  void wait() const override;
  std::chrono::nanoseconds since(const DeviceEvent& earlier) const override;

 private:
  friend class CpuStream;
  class Point;
  std::shared_ptr<Point> point(std::string_view call) const;  // throws when never recorded

  const CpuDevice& device_;
  const EventUse use_;
  mutable std::mutex mutex_;
  std::shared_ptr<Point> point_;  // guarded by mutex_
};

}  // namespace millrace
