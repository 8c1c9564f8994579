// What the tests of the conformance suite start from: a machine, its first GPU, and a train stream
// that was lent. Skips, with the reason, where there is no GPU; at the end nothing may have gone
// wrong unseen.
#pragma once

#include <gmock/gmock.h>

#include <memory>

#include "millrace/runtime/device/device.h"
#include "tests/device/pack_vectors.h"
#include "tests/support/cuda_machine.h"

namespace millrace::test {

// A stream as LibTorch lends it: to put kernels on, and as the engine sees it.
struct LentStream {
  LentStream(CudaMachine& machine, Device& device, int index)
      : handle(machine.stream(index)), stream(borrow_cuda_stream(device, handle)) {}
  DeviceStream* operator->() const { return stream.get(); }

  void* handle;
  std::unique_ptr<DeviceStream> stream;
};

class CudaConformance : public ::testing::Test {
 protected:
  void SetUp() override {
    machine_ = open_cuda_machine(1);
    if (const std::string reason = machine_->why_not(0); !reason.empty()) GTEST_SKIP() << reason;
    device_ = open_cuda_device(0);
    train_ = std::make_unique<LentStream>(*machine_, *device_, 0);
  }
  void TearDown() override {
    if (!device_) return;
    train_.reset();
    device_.reset();
    EXPECT_THAT(machine_->check(), ::testing::IsEmpty());
  }

  LentStream lend() { return {*machine_, *device_, 0}; }
  // Host memory that is pinned.
  PinnedBytes pinned(std::size_t size) { return {*device_, std::vector<std::byte>(size)}; }

  std::unique_ptr<CudaMachine> machine_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<LentStream> train_;
};

}  // namespace millrace::test
