// Batches in, numbers and scores out, through StepStreams on a stream that was lent. The kernels
// are copies and fills, so that what comes back says which batch the step read.
#pragma once

#include <gmock/gmock.h>

#include <array>
#include <cstring>
#include <vector>

#include "millrace/runtime/device/event_waiter.h"
#include "millrace/runtime/device/step_streams.h"
#include "tests/device/cuda_conformance.h"
#include "tests/support/images.h"
#include "tests/support/run_task.h"

namespace millrace::test {

class CudaStepRun {
 public:
  static constexpr int kBatches = 50;

  CudaStepRun(CudaMachine& machine, LentStream& train)
      : machine_(machine),
        train_(train),
        result_(train->device().allocate(sizeof(float) + kScores)),
        steps_(*train.stream) {}

  // Every batch; afterwards nothing is under way.
  void run() {
    steps_.spans();  // from now on
    for (int batch = 0; batch < kBatches; ++batch) {
      catch_up();
      step(batch);
      if (batch % 5 == 0) expect_scores(batch);
      steps_.spans();
    }
    run_task(steps_.drain(waiter_));
    train_->synchronize();
    for (int batch = 0; batch < kBatches; ++batch) {
      EXPECT_EQ(steps_.number(tickets_[static_cast<std::size_t>(batch)]), number_of(batch));
    }
    expect_spans_in_order();
  }

 private:
  static constexpr std::size_t kScores = 3000;

  static float number_of(int batch) { return static_cast<float>(batch) + 0.5f; }
  // Inputs that begin with the number, and targets, which are the scores as well.
  static std::array<std::vector<std::byte>, 2> content(int batch) {
    const auto seed = static_cast<std::uint32_t>(batch);
    std::array parts = {pattern(4 + (seed * 7919) % 60'000, seed), pattern(kScores, seed + 1000)};
    const float number = number_of(batch);
    std::memcpy(parts[0].data(), &number, sizeof(number));
    return parts;
  }

  void catch_up() {
    while (const DeviceEvent* const event = steps_.pending()) run_task(waiter_.wait(*event));
  }
  // What the step read is overwritten at its end, so that who reads late sees it.
  void step(int batch) {
    const auto parts = content(batch);
    const std::array<std::span<const std::byte>, 2> views = {parts[0], parts[1]};
    const auto there = steps_.bring(views);
    const std::span inputs(there[0], parts[0].size()), targets(there[1], kScores);
    if (batch % 4 == 0) machine_.hold_up(train_.handle);
    const auto loss = result_->bytes().first(sizeof(float));
    const auto scores = result_->bytes().last(kScores);
    machine_.copy(train_.handle, loss, inputs.first(sizeof(float)));
    machine_.copy(train_.handle, scores, targets);
    machine_.fill(train_.handle, inputs, std::byte{0xEE});
    machine_.fill(train_.handle, targets, std::byte{0xEE});
    tickets_.push_back(steps_.send(loss.data()));
    if (batch % 5 == 0) steps_.fetch(scores.data(), kScores);
    steps_.used();
    machine_.fill(train_.handle, result_->bytes(), std::byte{0xDD});
    steps_.stepped();
  }
  void expect_scores(int batch) {
    catch_up();
    EXPECT_TRUE(std::ranges::equal(steps_.received(), content(batch)[1])) << "batch " << batch;
  }
  void expect_spans_in_order() {
    const auto spans = steps_.spans();
    ASSERT_EQ(spans.size(), std::size_t{kBatches});
    for (std::size_t i = 0; i < spans.size(); ++i) {
      EXPECT_EQ(spans[i].number, static_cast<std::int64_t>(i) + 1);
      EXPECT_LE(spans[i].first, spans[i].last) << i;
      EXPECT_LE(i > 0 ? spans[i - 1].last : spans[0].first, spans[i].first) << i;
    }
  }

  CudaMachine& machine_;
  LentStream& train_;
  const std::unique_ptr<DeviceBuffer> result_;
  EventWaiter waiter_;
  StepStreams steps_;
  std::vector<std::uint32_t> tickets_;
};

}  // namespace millrace::test
