#include "millrace/runtime/device/cpu_device.h"

#include <gmock/gmock.h>

#include <atomic>
#include <future>
#include <vector>

#include "millrace/runtime/device/device_error.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::vector<std::byte> bytes(std::size_t count, int first = 1) {
  std::vector<std::byte> made(count);
  for (std::size_t i = 0; i < count; ++i) made[i] = std::byte(first + static_cast<int>(i));
  return made;
}

// Holds a stream up until the test lets it go.
struct Barrier {
  std::promise<void> open;
  std::shared_future<void> opened = open.get_future().share();
  void block(CpuStream& stream) {
    stream.launch([opened = opened] { opened.wait(); });
  }
};

TEST(CpuDevice, AStreamRunsInOrderAndBesideTheHost) {
  CpuDevice device;
  const auto stream = device.make_cpu_stream();
  Barrier barrier;
  std::vector<int> order;
  barrier.block(*stream);
  for (int i = 0; i < 3; ++i) stream->launch([&order, i] { order.push_back(i); });
  const auto event = device.make_event();
  stream->record(*event);
  EXPECT_FALSE(event->done()) << "the host went on, the stream did not";
  barrier.open.set_value();
  event->wait();
  EXPECT_TRUE(event->done());
  EXPECT_THAT(order, ElementsAre(0, 1, 2));
}

TEST(CpuDevice, AStreamWaitsForAnotherOne) {
  CpuDevice device;
  const auto first = device.make_cpu_stream();
  const auto second = device.make_cpu_stream();
  Barrier barrier;
  std::atomic<int> value{0};  // nothing orders the second value and the read
  int seen = -1;
  barrier.block(*first);
  first->launch([&] { value = 1; });
  const auto event = device.make_event();
  first->record(*event);
  second->wait_for(*event);
  second->launch([&] { seen = value; });
  // Recorded anew: the wait above still means the earlier point.
  first->launch([&] { value = 2; });
  first->record(*event);
  barrier.open.set_value();
  second->synchronize();
  EXPECT_GE(seen, 1);
  event->wait();
  EXPECT_EQ(value, 2);
}

TEST(CpuDevice, CopiesBothWays) {
  CpuDevice device;
  const auto stream = device.make_stream(StreamPriority::kHigh);
  auto host = bytes(100), on_device = bytes(100, 50), back = bytes(100, 0);
  const auto pin_host = device.pin(host), pin_back = device.pin(back);
  EXPECT_EQ(device.pinned(), 200u);
  stream->copy_to_device(on_device.data(), host);
  stream->copy_to_host(back, on_device.data());
  stream->synchronize();
  EXPECT_EQ(on_device, host);
  EXPECT_EQ(back, host);
}

TEST(CpuDevice, OnlyPinnedMemoryIsCopied) {
  CpuDevice device;
  const auto stream = device.make_stream(StreamPriority::kNormal);
  auto host = bytes(100), other = bytes(100);
  auto pin = device.pin(std::span(host).first(50));
  stream->copy_to_host(std::span(host).subspan(10, 40), other.data());
  EXPECT_THROW(stream->copy_to_host(std::span(host).subspan(10, 41), other.data()),
               std::logic_error);
  stream->synchronize();
  pin.reset();
  EXPECT_EQ(device.pinned(), 0u);
  EXPECT_THROW(stream->copy_to_host(std::span(host).first(1), other.data()), std::logic_error);
}

TEST(CpuDevice, WhatAGpuWouldLetPassIsRefused) {
  CpuDevice device, other;
  const auto stream = device.make_stream(StreamPriority::kNormal);
  const auto event = device.make_event();
  EXPECT_THROW(stream->wait_for(*event), std::logic_error);
  EXPECT_THROW(event->wait(), std::logic_error);
  EXPECT_THROW(static_cast<void>(event->done()), std::logic_error);
  const auto foreign = other.make_event();
  EXPECT_THROW(stream->record(*foreign), std::logic_error);
  other.make_stream(StreamPriority::kNormal)->record(*foreign);
  EXPECT_THROW(stream->wait_for(*foreign), std::logic_error);
}

TEST(CpuDevice, AFailureIsStickyAndReachesEveryWaiter) {
  CpuDeviceOptions options;
  std::atomic<int> launches{0};
  options.probe = [&](std::string_view operation) {
    if (operation == "launch" && ++launches == 2) throw std::runtime_error("an illegal address");
  };
  CpuDevice device(options);
  const auto stream = device.make_cpu_stream();
  const auto other = device.make_cpu_stream();
  Barrier barrier;
  barrier.block(*stream);
  bool ran = false;
  stream->launch([] {});
  stream->launch([&] { ran = true; });
  const auto event = device.make_event();
  stream->record(*event);
  other->wait_for(*event);
  const auto after = device.make_event();
  other->record(*after);
  barrier.open.set_value();
  EXPECT_THAT([&] { event->wait(); },
              ThrowsMessage<DeviceError>("wait on cpu: an illegal address (error 1)"));
  EXPECT_THROW(after->wait(), DeviceError);
  EXPECT_THROW(static_cast<void>(event->done()), DeviceError);
  EXPECT_FALSE(ran);
  EXPECT_THAT([&] { stream->launch([] {}); },
              ThrowsMessage<DeviceError>(HasSubstr("launch on cpu: an illegal address")));
  EXPECT_THROW(other->synchronize(), DeviceError);
}

TEST(CpuDevice, ADestroyedStreamRunsWhatItWasGiven) {
  CpuDevice device;
  int ran = 0;
  auto stream = device.make_cpu_stream();
  for (int i = 0; i < 100; ++i) stream->launch([&] { ++ran; });
  stream.reset();
  EXPECT_EQ(ran, 100);
}

TEST(CpuDevice, KnowsTheMemoryOfTheMachine) {
  const DeviceMemory memory = CpuDevice().memory();
  EXPECT_GT(memory.free, 0u);
  EXPECT_GE(memory.total, memory.free);
}

}  // namespace
}  // namespace millrace
