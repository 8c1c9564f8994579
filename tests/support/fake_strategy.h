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
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "millrace/io/storage.h"
#include "millrace/runtime/engine/strategy.h"

namespace millrace::test {

struct FakeStrategyOptions {
  std::size_t floats = 8000;     // of each parameter: above Staging::kSmall
  std::string body = "body";     // another name makes a file of another model
  bool uses_every_core = false;  // what StageMode::kAuto asks
};

class FakeStrategy final : public Strategy {
 public:
  explicit FakeStrategy(FakeStrategyOptions options = {});

  void prepare(std::uint64_t seed, StateGate& gate) override;
  StepOutput forward_backward(const Batch& batch) override;
  void optimizer_step() override;
  TensorView predict(const Batch& batch) override;
  std::span<double> learning_rates() override { return {&rate_, 1}; }
  CapturedState capture(bool with_optimizer) override;
  std::string save_rng() const override;
  void load_rng(std::string_view bytes) override;
  LoadReport load_model(const CheckpointFile& file, const LoadOptions& options) override;
  void load_optimizer(const CheckpointFile& file) override;
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

 private:
  using Floats = std::shared_ptr<std::vector<float>>;
  struct Tensor {
    std::vector<std::string> names;  // several: tied
    Floats values;
    Floats momentum;  // null when it is not trained
  };
  class Loss final : public ScalarSource {
   public:
    std::optional<double> try_read(std::uint32_t) const override { return value; }
    double value = 0;
  };
  float draw();
  Floats random_floats();
  void write(const Floats& target, const std::vector<float>& source);

  FakeStrategyOptions options_;
  std::vector<Tensor> tensors_;
  StateGate* gate_ = nullptr;
  std::uint64_t random_ = 1;
  double rate_ = 0.125;
  float gradient_ = 0;
  Loss loss_;
  Scalar scalar_{"loss", &loss_, 0};
  std::vector<float> scores_;
  std::vector<std::int64_t> score_sizes_;
};

// What FakeStrategy::state() was when the file was captured, as the file has it.
std::vector<std::vector<std::byte>> state_in(const Storage& storage, std::string_view name);

}  // namespace millrace::test
