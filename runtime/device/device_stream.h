// A queue of work on a device: what is put in runs in that order, beside the host and beside other
// streams. Every call but synchronize() returns at once.
//
// Calls may come from several threads; what two threads put in at a time comes in some order. The
// memory that a copy reads or writes must stay as it is until an event recorded after it is done.
#pragma once

#include <cstddef>
#include <span>

namespace millrace {

struct PackPiece;   // runtime/device/pack.h
class Device;       // runtime/device/device.h
class DeviceEvent;  // runtime/device/device_event.h

class DeviceStream {
 public:
  virtual ~DeviceStream() = default;
  virtual Device& device() const noexcept = 0;

  // The event, of this device, stands for everything put in so far.
  virtual void record(DeviceEvent& event) = 0;
  // What is put in from now on runs after the point for which `event` stands now.
  virtual void wait_for(const DeviceEvent& event) = 0;
  // `to` is pinned (Device::pin), `from` memory of the device.
  virtual void copy_to_host(std::span<std::byte> to, const std::byte* from) = 0;
  // The other way round.
  virtual void copy_to_device(std::byte* to, std::span<const std::byte> from) = 0;
  // One launch that gathers the pieces of `table` into `to` (pack.h). Both are memory of a
  // DeviceBuffer, the table one that a copy put in before has filled: it is read when the launch
  // runs. The pieces lie in the device's memory and end within `to`.
  virtual void pack(std::span<std::byte> to, std::span<const PackPiece> table) = 0;

  // Blocks until all of it is done: for start and end, never in steady state. Throws DeviceError.
  virtual void synchronize() = 0;
};

}  // namespace millrace
