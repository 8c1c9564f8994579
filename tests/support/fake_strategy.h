// FakeStrategy: a strategy without LibTorch, small and deterministic, with one of everything that
// makes a training state hard to capture.
//
//   storage 0, 1   embed.weight, tied with head.weight; its momentum
//   storage 2, 3   body.weight; its momentum
//   storage 4      frozen.weight: no gradient, no momentum
//   storage 5      norm.running_mean: changed by forward_backward, never behind the gate
//
// Without the optimizer the momenta are left out. Every step depends on the batch's bytes, on all
// earlier steps and on its own random generator, so that any byte restored wrongly shows. As every
// strategy, it lives on the train context; the functions below are called there.
//
// With a stream all of it is memory of that stream's device, touched by kernels on it; batches,
// losses and scores travel through StepStreams. It is then the CPU twin of a strategy on a GPU: the
// same numbers come out, later.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "millrace/io/storage.h"
#include "millrace/runtime/device/cpu_stream.h"
#include "millrace/runtime/device/step_streams.h"
#include "millrace/runtime/engine/strategy.h"

namespace millrace::test {

struct FakeStrategyOptions {
  std::size_t floats = 8000;        // of each parameter: above Staging::kSmall
  std::string body = "body";        // another name makes a file of another model
  bool uses_every_core = false;     // what StageMode::kAuto asks
  CpuStream* stream = nullptr;      // null: the host's memory
  std::uint32_t loss_lateness = 0;  // steps until the loss of one can be read
};

class FakeStrategy final : public Strategy {
 public:
  explicit FakeStrategy(FakeStrategyOptions options = {});
  ~FakeStrategy() override;

  void prepare(std::uint64_t seed, StateGate& gate) override;
  StepOutput forward_backward(const Batch& batch) override;
  void optimizer_step() override;
  void predict(const Batch& batch) override;
  TensorView scores() override;
  std::span<double> learning_rates() override { return {&rate_, 1}; }
  CapturedState capture(bool with_optimizer) override;
  std::string save_rng() const override;
  void load_rng(std::string_view bytes) override;
  LoadReport load_model(const CheckpointFile& file, const LoadOptions& options) override;
  void load_optimizer(const CheckpointFile& file) override;
  DeviceStream* train_stream() override { return options_.stream; }
  BatchMemory* batch_memory() override { return memory != nullptr ? memory : steps_.get(); }
  const DeviceEvent* pending() override { return steps_ ? steps_->pending() : nullptr; }
  const DeviceEvent* unread() override { return steps_ ? steps_->unread() : nullptr; }
  Task<> drain(EventWaiter& waiter) override { return steps_->drain(waiter); }
  std::span<const StreamSpan> stream_spans() override {
    return steps_ ? steps_->spans() : std::span<const StreamSpan>();
  }
  bool uses_every_core() const override { return options_.uses_every_core; }

  // Everything that decides the next step, storage by storage, then the generator and the rate.
  std::vector<std::vector<std::byte>> state() const;
  // The live memory of body.weight: for hooks that write it.
  std::span<float> body() { return *tensors_[1].values; }

  // Called at the start of forward_backward and of optimizer_step, and before a storage is written
  // behind the gate. They may throw.
  std::function<void()> on_forward = [] {};
  std::function<void()> on_step = [] {};
  std::function<void(std::size_t storage)> on_write = [](std::size_t) {};
  // Where batches are put; null: the device's own, if there is one.
  BatchMemory* memory = nullptr;
  // Asked at each capture for its watch.
  std::function<std::shared_ptr<const CaptureWatch>()> make_watch = [] { return nullptr; };

 private:
  using Floats = std::shared_ptr<std::vector<float>>;
  struct Tensor {
    std::vector<std::string> names;  // several: tied
    Floats values;
    Floats momentum;  // null when it is not trained
  };
  class Loss final : public ScalarSource {
   public:
    std::optional<double> try_read(std::uint32_t ticket) const override {
      if (steps - ticket <= lateness) return std::nullopt;
      return values[ticket % kKept];
    }
    void add(double value) { values[steps++ % kKept] = value; }

    std::uint32_t steps = 0, lateness = 0;
    double values[kKept] = {};
  };
  class DeviceLoss final : public ScalarSource {
   public:
    std::optional<double> try_read(std::uint32_t ticket) const override {
      return steps->number(ticket);
    }
    const StepStreams* steps = nullptr;
  };
  // Field 0 of the batch, where compute() may read it.
  std::span<const float> bring(const Batch& batch);
  // Now, or as a kernel.
  template <class Kernel>
  void compute(Kernel kernel) {
    if (options_.stream == nullptr) return kernel();
    options_.stream->launch(std::move(kernel));
  }
  void finish() const;  // all kernels
  float draw();
  Floats random_floats();
  void write(const Floats& target, const std::vector<float>& source);

  FakeStrategyOptions options_;
  std::vector<Tensor> tensors_;
  StateGate* gate_ = nullptr;
  std::uint64_t random_ = 1;
  double rate_ = 0.125;
  float gradient_ = 0, step_loss_ = 0;
  std::unique_ptr<StepStreams> steps_;  // null on the host
  DeviceLoss device_loss_;
  Loss loss_;
  Scalar scalar_{"loss", &loss_, 0};
  std::vector<float> scores_;
  std::vector<std::int64_t> score_sizes_;
};

// What FakeStrategy::state() was when the file was captured, as the file has it.
std::vector<std::vector<std::byte>> state_in(const Storage& storage, std::string_view name);

}  // namespace millrace::test
