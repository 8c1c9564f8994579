#include "millrace/runtime/torch/single_device.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>

#include <cstring>
#include <mutex>
#include <optional>
#include <thread>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/engine/state_gate.h"
#include "millrace/runtime/torch/state_dict.h"
#include "millrace/runtime/torch/tensor_bytes.h"

namespace millrace {
namespace {

// On the CPU a loss is a number as soon as the step is over.
class LossValue final : public ScalarSource {
 public:
  void set(double value) { value_ = value; }
  std::optional<double> try_read(std::uint32_t) const override { return value_; }

 private:
  double value_ = 0;
};

at::Generator default_generator() { return at::detail::getDefaultCPUGenerator(); }

class SingleDevice final : public Strategy {
 public:
  SingleDevice(ModelFunctions functions, const OptimizerFactory& optimizer,
               SingleDeviceOptions options)
      : model_(std::move(functions)), options_(options) {
    std::vector<at::Tensor> parameters;
    for (const Model::Entry& entry : model_.entries()) {
      if (!entry.buffer) parameters.push_back(*entry.tensor);
    }
    optimizer_ = optimizer(std::move(parameters));
  }

  void prepare(std::uint64_t seed, StateGate& gate) override {
    gate_ = &gate;
    if (options_.threads > 0) at::set_num_threads(options_.threads);
    set_randomness(seed);
  }

  StepOutput forward_backward(const Batch& batch) override {
    check(batch);
    model_.set_training(true);
    const at::Tensor output = model_.forward()(tensor_over(batch.fields()[0].view()));
    const at::Tensor loss = model_.loss()(output, tensor_over(batch.fields()[1].view()));
    loss.backward();
    loss_.set(loss.item<double>());
    return {{&scalar_, 1}, true};
  }

  void optimizer_step() override { optimizer_->step(*gate_); }

  TensorView predict(const Batch& batch) override {
    check(batch);
    const at::NoGradGuard no_grad;
    model_.set_training(false);
    scores_ = model_.forward()(tensor_over(batch.fields()[0].view())).contiguous();
    const auto bytes = static_cast<std::size_t>(scores_.nbytes());
    return {dtype_of(scores_),
            {scores_.sizes().data(), scores_.sizes().size()},
            {static_cast<const std::byte*>(scores_.const_data_ptr()), bytes}};
  }

  std::span<double> learning_rates() override { return optimizer_->learning_rates(); }

  CapturedState capture(bool with_optimizer) override {
    CapturedState state;
    StorageTable storages;
    if (with_optimizer) state.optimizer = optimizer_tree(*optimizer_, storages);
    state.state_dict = model_tree(model_, storages);
    state.storages = storages.storages();
    state.handles = storages.handles();
    return state;
  }

  std::string save_rng() const override {
    at::Generator generator = default_generator();
    const std::scoped_lock lock(generator.mutex());
    const at::Tensor state = generator.get_state();
    return {static_cast<const char*>(state.const_data_ptr()), state.nbytes()};
  }

  void load_rng(std::string_view bytes) override {
    at::Generator generator = default_generator();
    const std::scoped_lock lock(generator.mutex());
    const at::Tensor now = generator.get_state();
    if (bytes.size() != now.nbytes()) {
      throw Error("the random generator's state has " + std::to_string(bytes.size()) +
                  " bytes, LibTorch's has " + std::to_string(now.nbytes()));
    }
    at::Tensor state = at::empty({static_cast<std::int64_t>(bytes.size())}, at::kByte);
    std::memcpy(state.mutable_data_ptr(), bytes.data(), bytes.size());
    generator.set_state(state);
  }

  LoadReport load_model(const CheckpointFile& file, const LoadOptions& options) override {
    const ModelMatch match = match_model(model_, file.state_dict());
    if (options.strict && !match.exact()) {
      throw CheckpointError(file.path(), "is of another model: " + match.text());
    }
    if (match.pairs.empty()) {
      throw CheckpointError(file.path(), "none of its tensors fits this model: " + match.text());
    }
    std::vector<at::Tensor> sources;
    for (const ModelMatch::Pair& pair : match.pairs)
      sources.push_back(tensor_over(file, pair.leaf));
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < sources.size(); ++i) {
      at::Tensor target = *match.pairs[i].entry.tensor;
      gate_->writable(storage_bytes(target));
      target.copy_(sources[i]);
    }
    LoadReport report;
    if (!match.exact()) report.warnings.push_back(file.path() + ": " + match.text());
    return report;
  }

  void load_optimizer(const CheckpointFile& file) override {
    load_optimizer_tree(*optimizer_, file, *gate_);
  }

  bool uses_every_core() const override {
    return at::get_num_threads() >= static_cast<int>(std::thread::hardware_concurrency());
  }

 private:
  static void check(const Batch& batch) {
    if (batch.fields().size() < 2) {
      throw ConfigError("train", "a batch needs two fields, the input and the target; it has " +
                                     std::to_string(batch.fields().size()));
    }
  }

  Model model_;
  SingleDeviceOptions options_;
  std::unique_ptr<Optimizer> optimizer_;
  StateGate* gate_ = nullptr;
  LossValue loss_;
  Scalar scalar_{"loss", &loss_, 0};
  at::Tensor scores_;  // of the last predict()
};

}  // namespace

std::unique_ptr<Strategy> make_single_device(ModelFunctions model, OptimizerFactory optimizer,
                                             SingleDeviceOptions options) {
  return std::make_unique<SingleDevice>(std::move(model), optimizer, options);
}

at::Tensor cross_entropy(const at::Tensor& scores, const at::Tensor& labels) {
  return at::cross_entropy_loss(scores, labels);
}

void set_randomness(std::uint64_t seed) { at::manual_seed(seed); }

}  // namespace millrace
