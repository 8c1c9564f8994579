// Steps beside the host, on the fake and on a GPU: awaited events, batches in, results out.
#include <gmock/gmock.h>

#include <array>
#include <asio/this_coro.hpp>
#include <thread>

#include "millrace/runtime/async/task_scope.h"
#include "millrace/runtime/device/copy_in.h"
#include "millrace/runtime/device/readback.h"
#include "tests/device/cuda_step_run.h"
#include "tests/device/step_scene.h"

namespace millrace {
namespace {

using test::CudaConformance;
using test::LentStream;
using test::run_task;

// ---- EventWaiter

struct Mark {
  std::unique_ptr<DeviceEvent> event;
  std::span<std::byte> memory;
  std::byte value;
};

Task<> await_mark(EventWaiter& waiter, test::CudaMachine& machine, const Mark& mark, int& ended) {
  co_await waiter.wait(*mark.event);
  EXPECT_TRUE(mark.event->done());
  EXPECT_EQ(machine.read(mark.memory), std::vector<std::byte>(mark.memory.size(), mark.value));
  ++ended;
}

Task<> await_marks(EventWaiter& waiter, test::CudaMachine& machine, const std::vector<Mark>& marks,
                   int& ended) {
  TaskScope scope(co_await asio::this_coro::executor);
  for (const Mark& mark : marks) scope.spawn(await_mark(waiter, machine, mark, ended));
  co_await scope.join();
}

TEST_F(CudaConformance, AHundredWaitsInFlightEachEndAfterTheirEvent) {
  constexpr std::size_t kWaits = 100, kPiece = 1000, kStreams = 4;
  const auto memory = device_->allocate(kWaits * kPiece);
  std::vector<LentStream> streams;
  for (std::size_t i = 0; i < kStreams; ++i) streams.push_back(lend());
  std::vector<Mark> marks;
  for (std::size_t i = 0; i < kWaits; ++i) {
    const LentStream& stream = streams[i % kStreams];
    marks.push_back({device_->make_event(), memory->bytes().subspan(i * kPiece, kPiece),
                     static_cast<std::byte>(i + 1)});
    if (i % 3 == 0) machine_->hold_up(stream.handle);
    machine_->fill(stream.handle, marks.back().memory, marks.back().value);
    stream->record(*marks.back().event);
  }
  EventWaiter waiter;
  int ended = 0;
  asio::io_context context(1);
  run_task(context, await_marks(waiter, *machine_, marks, ended));
  EXPECT_EQ(ended, static_cast<int>(kWaits));
}

// ---- CopyIn and Readback

// Batches that a loader thread fills; each comes back, copied to the result by a kernel.
class EchoRun {
 public:
  static constexpr int kBatches = 60;

  EchoRun(test::CudaMachine& machine, LentStream& train, std::size_t slots)
      : machine_(machine),
        train_(train),
        destinations_(train->device().allocate(slots * kMost)),
        result_(train->device().allocate(kMost)),
        copy_in_(*train.stream, slots),
        readback_(*train.stream, {.capacity = 4, .entry_bytes = kMost}) {
    copy_in_.reserve(kMost);
  }

  void run() {
    {
      std::jthread loader([this](const std::stop_token& stop) { load(stop); });
      run_task(steps());
    }
    run_task(readback_.drain(waiter_, take_));
    run_task(copy_in_.drain(waiter_));
    train_->synchronize();
    EXPECT_EQ(taken_, kBatches);
  }

 private:
  static constexpr std::size_t kMost = 16'384;

  static std::size_t size_of(std::int64_t batch) {
    return static_cast<std::size_t>(batch * 7919 % 16'000) + 1;
  }
  static std::vector<std::byte> content(std::int64_t batch) {
    return test::pattern(size_of(batch), static_cast<std::uint32_t>(batch));
  }

  // Loader thread.
  void load(const std::stop_token& stop) {
    for (std::uint32_t batch = 0; batch < kBatches; ++batch) {
      const std::array<std::size_t, 1> sizes = {size_of(batch)};
      CopyIn::Slot* const slot = copy_in_.next(sizes, stop);
      if (slot == nullptr) return;
      std::ranges::copy(content(batch), slot->part(0).begin());
      handoff_.push({slot, batch});
    }
  }

  // Train context.
  Task<> steps() {
    for (int batch = 0; batch < kBatches; ++batch) {
      const test::Handoff::Loaded loaded = handoff_.pop();
      step(batch, *loaded.slot);
      while (!readback_.push(batch, result_->data(), size_of(batch))) {
        if (readback_.take_ready(take_) == 0) co_await readback_.wait_oldest(waiter_);
      }
    }
  }
  void step(int batch, CopyIn::Slot& slot) {
    const auto there = destinations_->bytes().subspan(slot.index() * kMost, size_of(batch));
    copy_in_.put_in(slot, there.data());
    if (batch % 4 == 0) machine_.hold_up(train_.handle);
    machine_.copy(train_.handle, result_->bytes().first(there.size()), there);
    machine_.fill(train_.handle, there, std::byte{0xEE});
    copy_in_.used(slot);
  }

  test::CudaMachine& machine_;
  LentStream& train_;
  const std::unique_ptr<DeviceBuffer> destinations_, result_;
  EventWaiter waiter_;
  CopyIn copy_in_;
  Readback readback_;
  test::Handoff handoff_;
  int taken_ = 0;
  const Readback::Take take_ = [this](std::int64_t batch, std::span<const std::byte> result) {
    EXPECT_EQ(batch, taken_++);
    EXPECT_TRUE(std::ranges::equal(result, content(batch))) << "batch " << batch;
  };
};

TEST_F(CudaConformance, EveryBatchGoesInAndComesBack) {
  for (const std::size_t slots : {1, 2, 3}) EchoRun(*machine_, *train_, slots).run();
}

// ---- StepStreams

TEST_F(CudaConformance, FiftyStepsReadTheirBatchesAndTheirNumbersAndScoresComeBack) {
  test::CudaStepRun(*machine_, *train_).run();
}

}  // namespace
}  // namespace millrace
