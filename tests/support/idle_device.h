// A device that allocates nothing and does nothing: every event is reached when it is recorded.
// For counting what the code that talks to a device costs by itself.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "millrace/runtime/device/device.h"

namespace millrace::test {

class IdleDevice final : public Device {
 public:
  std::string name() const override { return "idle"; }
  DeviceMemory memory() const override { return {}; }
  std::unique_ptr<DeviceStream> make_stream(StreamPriority) override {
    return std::make_unique<Stream>(*this);
  }
  using Device::make_event;
  std::unique_ptr<DeviceEvent> make_event(EventUse) override { return std::make_unique<Event>(); }
  std::unique_ptr<PinnedMemory> pin(std::span<std::byte>) override {
    return std::make_unique<Pin>(*this);
  }
  std::unique_ptr<DeviceBuffer> allocate(std::uint64_t bytes) override {
    return std::make_unique<Buffer>(new std::vector<std::byte>(bytes));
  }
  int most_pins() const { return most_pins_; }  // at a time

 private:
  class Pin final : public PinnedMemory {
   public:
    explicit Pin(IdleDevice& device) : device_(device) {
      device_.most_pins_ = std::max(device_.most_pins_, ++device_.pins_);
    }
    ~Pin() override { --device_.pins_; }

   private:
    IdleDevice& device_;
  };
  class Event final : public DeviceEvent {
   public:
    bool done() const override { return true; }
    void wait() const override {}
    std::chrono::nanoseconds since(const DeviceEvent&) const override { return {}; }
  };
  class Buffer final : public DeviceBuffer {
   public:
    explicit Buffer(std::vector<std::byte>* memory) : DeviceBuffer(*memory), memory_(memory) {}

   private:
    const std::unique_ptr<std::vector<std::byte>> memory_;
  };
  class Stream final : public DeviceStream {
   public:
    explicit Stream(Device& device) : device_(device) {}
    Device& device() const noexcept override { return device_; }
    void record(DeviceEvent&) override {}
    void wait_for(const DeviceEvent&) override {}
    void copy_to_host(std::span<std::byte>, const std::byte*) override {}
    void copy_to_device(std::byte*, std::span<const std::byte>) override {}
    void pack(std::span<std::byte>, std::span<const PackPiece>) override {}
    void synchronize() override {}

   private:
    Device& device_;
  };

  int pins_ = 0, most_pins_ = 0;
};

}  // namespace millrace::test
