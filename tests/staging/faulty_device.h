// A device with one defect, as the mistake in our code would look to it, whose copies to the host
// are held back until an event, so that the defect always shows.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "millrace/runtime/device/device.h"

namespace millrace::test {

enum class Defect : std::uint8_t {
  kNone,
  kPackDoesNotWait,  // a pack is put in beside the copies: not after the copy of the pack before
  kHostDoesNotWait,  // a wait for an event returns at once: memory is used again too early
};

class FaultyDevice final : public Device {
 public:
  FaultyDevice(Device& device, Defect defect, const DeviceEvent& hold)
      : device_(device), defect_(defect), hold_(hold) {}

  std::string name() const override { return device_.name(); }
  DeviceMemory memory() const override { return device_.memory(); }
  std::unique_ptr<DeviceStream> make_stream(StreamPriority priority) override {
    auto made = device_.make_stream(priority);
    DeviceStream& real = *made;
    return std::make_unique<Stream>(*this, real, std::move(made));
  }
  using Device::make_event;
  std::unique_ptr<DeviceEvent> make_event(EventUse use) override {
    return std::make_unique<Event>(device_.make_event(use), defect_);
  }
  std::unique_ptr<PinnedMemory> pin(std::span<std::byte> memory) override {
    return device_.pin(memory);
  }
  std::unique_ptr<DeviceBuffer> allocate(std::uint64_t bytes) override {
    return device_.allocate(bytes);
  }
  // The same stream, taking this device's events.
  std::unique_ptr<DeviceStream> borrow(DeviceStream& stream) {
    return std::make_unique<Stream>(*this, stream, nullptr);
  }

 private:
  struct Event final : DeviceEvent {
    Event(std::unique_ptr<DeviceEvent> made, Defect given) : real(std::move(made)), defect(given) {}
    bool done() const override { return real->done(); }
    void wait() const override {
      if (defect != Defect::kHostDoesNotWait) real->wait();
    }
    std::chrono::nanoseconds since(const DeviceEvent& earlier) const override {
      return real->since(*dynamic_cast<const Event&>(earlier).real);
    }
    const std::unique_ptr<DeviceEvent> real;
    const Defect defect;
  };

  class Stream final : public DeviceStream {
   public:
    Stream(FaultyDevice& device, DeviceStream& real, std::unique_ptr<DeviceStream> owned)
        : device_(device), owned_(std::move(owned)), real_(real) {
      if (device_.defect_ != Defect::kPackDoesNotWait) return;
      beside_ = device_.device_.make_stream(StreamPriority::kNormal);
      packed_ = device_.device_.make_event();
    }
    Device& device() const noexcept override { return device_; }
    void record(DeviceEvent& event) override { real_.record(*dynamic_cast<Event&>(event).real); }
    void wait_for(const DeviceEvent& event) override {
      const DeviceEvent& point = *dynamic_cast<const Event&>(event).real;
      real_.wait_for(point);
      if (beside_) beside_->wait_for(point);
    }
    void copy_to_host(std::span<std::byte> to, const std::byte* from) override {
      real_.wait_for(device_.hold_);
      real_.copy_to_host(to, from);
    }
    void copy_to_device(std::byte* to, std::span<const std::byte> from) override {
      (beside_ ? *beside_ : real_).copy_to_device(to, from);
    }
    // It has run when this returns; what comes after it waits for it all the same.
    void pack(std::span<std::byte> to, std::span<const PackPiece> table) override {
      if (!beside_) return real_.pack(to, table);
      beside_->pack(to, table);
      beside_->record(*packed_);
      packed_->wait();
      real_.wait_for(*packed_);
    }
    void synchronize() override { real_.synchronize(); }

   private:
    FaultyDevice& device_;
    const std::unique_ptr<DeviceStream> owned_;
    DeviceStream& real_;
    std::unique_ptr<DeviceStream> beside_;
    std::unique_ptr<DeviceEvent> packed_;
  };

  Device& device_;
  const Defect defect_;
  const DeviceEvent& hold_;
};

}  // namespace millrace::test
