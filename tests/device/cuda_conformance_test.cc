// What every CUDA runtime must do for the back-end, and the back-end for the engine: streams,
// events and memory. The same tests run on the fake and on a GPU (tests/support/cuda_machine.h).
#include "tests/device/cuda_conformance.h"

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <thread>
#include <vector>

#include "millrace/runtime/device/device_error.h"
#include "tests/support/images.h"

namespace millrace {
namespace {

using test::CudaConformance;
using test::LentStream;
using test::PinnedBytes;

constexpr int kRounds = 40;
constexpr std::size_t kBytes = 100'000;

using Bytes = std::vector<std::byte>;

std::byte value_of(int number) { return static_cast<std::byte>(number % 251 + 1); }
Bytes all_of(std::byte value, std::size_t size = kBytes) { return Bytes(size, value); }

TEST_F(CudaConformance, TheDeviceSaysWhatItIs) {
  EXPECT_EQ(device_->name(), "cuda:0");
  EXPECT_GT(device_->memory().total, 0u);
  EXPECT_LE(device_->memory().free, device_->memory().total);
  EXPECT_EQ(&(*train_)->device(), device_.get());
}

// ---- streams

TEST_F(CudaConformance, AStreamRunsWhatItIsGivenInOrder) {
  const auto memory = device_->allocate(kBytes), other = device_->allocate(kBytes);
  const PinnedBytes in(*device_, test::pattern(kBytes, 1));
  PinnedBytes filled = pinned(kBytes), copied = pinned(kBytes), brought = pinned(kBytes);
  for (int round = 0; round < kRounds; ++round) {
    machine_->hold_up(train_->handle);
    machine_->fill(train_->handle, memory->bytes(), value_of(round));
    (*train_)->copy_to_host(filled.bytes, memory->data());
    machine_->copy(train_->handle, other->bytes(), memory->bytes());
    (*train_)->copy_to_device(memory->data(), in.bytes);
    (*train_)->copy_to_host(brought.bytes, memory->data());
    (*train_)->copy_to_host(copied.bytes, other->data());
    (*train_)->synchronize();
    ASSERT_EQ(filled.content(), all_of(value_of(round))) << "round " << round;
    ASSERT_EQ(copied.content(), all_of(value_of(round))) << "round " << round;
    ASSERT_EQ(brought.content(), in.content()) << "round " << round;
  }
}

TEST_F(CudaConformance, AReaderWaitsForTheWriterOfAnotherStream) {
  const auto memory = device_->allocate(kBytes);
  const auto copies = device_->make_stream(StreamPriority::kHigh);
  const auto written = device_->make_event(), read = device_->make_event();
  PinnedBytes seen = pinned(kBytes);
  for (int round = 0; round < kRounds; ++round) {
    machine_->hold_up(train_->handle);
    machine_->fill(train_->handle, memory->bytes(), value_of(round));
    (*train_)->record(*written);
    copies->wait_for(*written);
    copies->copy_to_host(seen.bytes, memory->data());
    copies->record(*read);
    (*train_)->wait_for(*read);
    copies->synchronize();
    ASSERT_EQ(seen.content(), all_of(value_of(round))) << "round " << round;
  }
}

// The reader is slow, because it waits for a third stream.
TEST_F(CudaConformance, AWriterWaitsForTheReaderOfAnotherStream) {
  const auto memory = device_->allocate(kBytes);
  const auto copies = device_->make_stream(StreamPriority::kNormal);
  const LentStream slow = lend();
  const auto held = device_->make_event(), read = device_->make_event();
  PinnedBytes seen = pinned(kBytes);
  machine_->write(memory->bytes(), all_of(value_of(0)));
  for (int round = 0; round < kRounds; ++round) {
    machine_->hold_up(slow.handle);
    slow->record(*held);
    copies->wait_for(*held);
    copies->copy_to_host(seen.bytes, memory->data());
    copies->record(*read);
    (*train_)->wait_for(*read);
    machine_->fill(train_->handle, memory->bytes(), value_of(round + 1));
    (*train_)->synchronize();
    ASSERT_EQ(seen.content(), all_of(value_of(round))) << "round " << round;
    ASSERT_EQ(machine_->read(memory->bytes()), all_of(value_of(round + 1))) << "round " << round;
  }
}

// ---- events

TEST_F(CudaConformance, AnEventIsDoneWithAllThatWasPutInBefore) {
  const auto memory = device_->allocate(kBytes);
  const auto event = device_->make_event();
  for (int round = 0; round < kRounds; ++round) {
    machine_->hold_up(train_->handle);
    machine_->fill(train_->handle, memory->bytes(), value_of(round));
    (*train_)->record(*event);
    if (round % 2 == 0) {
      event->wait();
    } else {
      while (!event->done()) std::this_thread::yield();
    }
    EXPECT_TRUE(event->done());
    ASSERT_EQ(machine_->read(memory->bytes()), all_of(value_of(round))) << "round " << round;
  }
}

TEST_F(CudaConformance, RecordedAnewAnEventStandsForALaterPointAndEarlierWaitsKeepTheirs) {
  const auto early = device_->allocate(kBytes), late = device_->allocate(kBytes);
  const auto before = device_->make_stream(StreamPriority::kNormal);
  const auto after = device_->make_stream(StreamPriority::kNormal);
  const auto event = device_->make_event();
  PinnedBytes seen_early = pinned(kBytes), seen_late = pinned(kBytes);
  for (int round = 0; round < kRounds; ++round) {
    machine_->hold_up(train_->handle);
    machine_->fill(train_->handle, early->bytes(), value_of(round));
    (*train_)->record(*event);
    before->wait_for(*event);
    before->copy_to_host(seen_early.bytes, early->data());
    machine_->hold_up(train_->handle);
    machine_->fill(train_->handle, late->bytes(), value_of(round + 1));
    (*train_)->record(*event);
    after->wait_for(*event);
    after->copy_to_host(seen_late.bytes, late->data());
    before->synchronize();
    after->synchronize();
    ASSERT_EQ(seen_early.content(), all_of(value_of(round))) << "round " << round;
    ASSERT_EQ(seen_late.content(), all_of(value_of(round + 1))) << "round " << round;
  }
}

TEST_F(CudaConformance, AnEventNeverRecordedIsRefused) {
  const auto never = device_->make_event(EventUse::kTiming);
  const auto recorded = device_->make_event(EventUse::kTiming);
  (*train_)->record(*recorded);
  (*train_)->synchronize();
  EXPECT_THROW((*train_)->wait_for(*never), std::logic_error);
  EXPECT_THROW(never->wait(), std::logic_error);
  EXPECT_THROW(never->done(), std::logic_error);
  EXPECT_THROW(never->since(*recorded), std::logic_error);
  EXPECT_THROW(recorded->since(*never), std::logic_error);
}

TEST_F(CudaConformance, TheTimesOfAStreamNeverRunBackwards) {
  constexpr std::size_t kEvents = 20;
  std::vector<std::unique_ptr<DeviceEvent>> events;
  for (std::size_t i = 0; i < kEvents; ++i) {
    events.push_back(device_->make_event(EventUse::kTiming));
    if (i % 2 == 1) machine_->hold_up(train_->handle);
    (*train_)->record(*events.back());
  }
  (*train_)->synchronize();
  for (std::size_t i = 1; i < kEvents; ++i) {
    EXPECT_GE(events[i]->since(*events[0]), events[i - 1]->since(*events[0])) << i;
    const auto step = events[i]->since(*events[i - 1]);
    EXPECT_GE(step.count(), i % 2 == 1 ? 1 : 0) << i;
  }
  const auto untimed = device_->make_event(EventUse::kOrder);
  (*train_)->record(*untimed);
  (*train_)->synchronize();
  EXPECT_THROW(untimed->since(*events[0]), std::logic_error);
  EXPECT_THROW(events[0]->since(*untimed), std::logic_error);
}

// ---- memory

// Also of an odd address, and the neighbours stay.
TEST_F(CudaConformance, CopiesBothWaysOfEverySize) {
  for (const std::size_t size : {std::size_t{1}, std::size_t{4095}, (std::size_t{1} << 20) + 3}) {
    const auto memory = device_->allocate(size + 2);
    const PinnedBytes in(*device_, test::pattern(size, 1));
    PinnedBytes back(*device_, test::pattern(size + 2, 2));
    Bytes expected = in.content();
    expected.insert(expected.begin(), std::byte{7});
    expected.push_back(std::byte{7});
    machine_->fill(train_->handle, memory->bytes(), std::byte{7});
    (*train_)->copy_to_device(memory->data() + 1, in.bytes);
    (*train_)->copy_to_host(back.bytes, memory->data());
    (*train_)->synchronize();
    EXPECT_EQ(back.content(), expected) << size;
    EXPECT_EQ(machine_->read(memory->bytes()), expected) << size;
    const auto part = back.bytes.subspan(1, size);
    std::ranges::fill(back.bytes, std::byte{9});
    (*train_)->copy_to_host(part, memory->data() + 1);
    (*train_)->synchronize();
    EXPECT_TRUE(std::ranges::equal(part, in.bytes)) << size;
    EXPECT_EQ(back.bytes.front(), std::byte{9});
    EXPECT_EQ(back.bytes.back(), std::byte{9});
  }
}

// The refusal is named, loses nothing, and is off the runtime's record (check()).
TEST_F(CudaConformance, MemoryIsPinnedOnceAtATime) {
  auto host = test::pattern(kBytes, 1);
  const auto memory = device_->allocate(kBytes);
  for (int round = 0; round < 3; ++round) {
    const auto pin = device_->pin(host);
    try {
      device_->pin(host);
      FAIL() << "pinned twice";
    } catch (const DeviceError& error) {
      EXPECT_EQ(error.call(), "cudaHostRegister");
      EXPECT_NE(error.code(), 0);
      EXPECT_FALSE(error.sticky());
    }
    std::ranges::fill(host, value_of(round));
    (*train_)->copy_to_device(memory->data(), host);
    (*train_)->synchronize();
    EXPECT_EQ(machine_->read(memory->bytes()), all_of(value_of(round)));
  }
}

TEST_F(CudaConformance, AllocatesAndFreesWhatNobodyElseHas) {
  std::vector<std::unique_ptr<DeviceBuffer>> buffers;
  for (int round = 0; round < 3; ++round) {
    for (std::uint64_t size = 1; size < 300'000; size = size * 3 + 1) {
      buffers.push_back(device_->allocate(size));
      EXPECT_EQ(buffers.back()->size(), size);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffers.back()->data()) % 16, 0u);
    }
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      machine_->fill(train_->handle, buffers[i]->bytes(), value_of(static_cast<int>(i)));
    }
    (*train_)->synchronize();
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      EXPECT_EQ(machine_->read(buffers[i]->bytes()),
                all_of(value_of(static_cast<int>(i)), buffers[i]->size()));
    }
    buffers.erase(buffers.begin(), buffers.begin() + 5);
  }
}

TEST_F(CudaConformance, MoreMemoryThanThereIsIsRefusedAndNothingIsLost) {
  try {
    device_->allocate(4 * device_->memory().total);
    FAIL() << "four times the memory of the device";
  } catch (const DeviceError& error) {
    EXPECT_EQ(error.call(), "cudaMalloc");
    EXPECT_FALSE(error.sticky());
  }
  const auto memory = device_->allocate(100);
  machine_->fill(train_->handle, memory->bytes(), std::byte{3});
  (*train_)->synchronize();
  EXPECT_EQ(machine_->read(memory->bytes()), all_of(std::byte{3}, 100));
}

TEST_F(CudaConformance, PacksEveryCase) {
  for (const test::PackCase& each : test::pack_cases()) {
    EXPECT_EQ(test::packed_on(*device_, each), each.expected()) << each.name;
  }
}

}  // namespace
}  // namespace millrace
