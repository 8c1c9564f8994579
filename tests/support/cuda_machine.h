// The machine under the CUDA back-end, as far as a test needs it beside runtime/device: streams
// that are somebody else's, kernels on them, and a device's memory seen from outside.
//
//   cuda_machine_fake.cc   the fake of the runtime (fake_cuda.h): each access is held against the
//                          rules, whatever the schedule made of it
//   cuda_machine_gpu.cc    the real runtime and whatever GPUs there are
//
// A program links one of them, so that the same tests run on both.
//
// Memory is that of a DeviceBuffer everywhere. Made by the test, outlives what is lent; everything
// is given back before check(). Any thread may call it, but for stream() and check(). What the
// runtime refuses is a std::runtime_error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/device/cuda_device.h"

namespace millrace::test {

class CudaMachine {
 public:
  virtual ~CudaMachine() = default;

  // Why GPU `device` cannot be used, for the test to skip with; empty when it can.
  std::string why_not(int device) const {
    try {
      open_cuda_device(device);
      return {};
    } catch (const ConfigError& error) {
      return error.what();
    }
  }

  // A new stream of GPU `device` as LibTorch would lend it, for borrow_cuda_stream(). It goes with
  // the machine.
  virtual void* stream(int device) = 0;

  // Kernels on a stream that was lent. Each returns at once.
  virtual void fill(void* stream, std::span<std::byte> memory, std::byte value) = 0;
  virtual void copy(void* stream, std::span<std::byte> to, std::span<const std::byte> from) = 0;
  // Touches no memory of the test's and takes a while, so that whoever does not wait for the stream
  // comes too early. No test may need it to be long enough.
  virtual void hold_up(void* stream) = 0;

  // From the host, through when it returns. No work under way may use the memory.
  virtual void write(std::span<std::byte> memory, std::span<const std::byte> bytes) = 0;
  virtual std::vector<std::byte> read(std::span<const std::byte> memory) = 0;

  // What went wrong unseen. The fake: broken rules, and what was left behind. A GPU: a failure of
  // its work, or an error that is still on the runtime's record.
  virtual std::vector<std::string> check() = 0;
};

// Any machine can be opened, also one of which why_not() then says that it has no GPU. `seed` draws
// the delays of the fake.
std::unique_ptr<CudaMachine> open_cuda_machine(std::uint32_t seed);

}  // namespace millrace::test
