#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/empty_like.h>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/state_gate.h"
#include "millrace/runtime/torch/optimizer.h"
#include "millrace/runtime/torch/tensor_bytes.h"

namespace millrace {
namespace {

class Sgd final : public Optimizer {
 public:
  Sgd(std::vector<at::Tensor> parameters_given, const SgdOptions& options)
      : Optimizer(std::move(parameters_given), options.lr), options_(options) {
    buffers_.resize(parameters().size());
    if (options_.momentum == 0) return;
    for (std::size_t i = 0; i < buffers_.size(); ++i) {
      const at::Tensor& parameter = parameters()[i];
      if (parameter.requires_grad()) buffers_[i] = {at::empty_like(parameter), false};
    }
  }

  NamedTensors state(std::size_t i) const override {
    if (!buffers_[i].started) return {};
    return {{"momentum_buffer", buffers_[i].tensor}};
  }
  std::vector<std::string> state_names() const override {
    if (options_.momentum == 0) return {};
    return {"momentum_buffer"};
  }
  void load_state(std::size_t i, const NamedTensors& loaded, StateGate& gate) override {
    const at::NoGradGuard no_grad;
    Buffer& buffer = buffers_[i];
    if (!buffer.tensor.defined() || loaded.empty()) return;
    gate.writable(storage_bytes(buffer.tensor));
    buffer.tensor.copy_(loaded.front().second);
    buffer.started = true;
  }
  void clear_state(std::size_t i, StateGate&) override { buffers_[i].started = false; }

  pickle::Value group() const override {
    pickle::Value values = pickle::Value::dict();
    values.set("lr", learning_rate());
    values.set("momentum", options_.momentum);
    values.set("dampening", options_.dampening);
    values.set("weight_decay", options_.weight_decay);
    values.set("nesterov", options_.nesterov);
    values.set("maximize", options_.maximize);
    values.set("foreach", pickle::Value());
    values.set("differentiable", false);
    values.set("fused", pickle::Value());
    return values;
  }
  void load_group(const pickle::Value& values) override {
    const auto number = [&](const char* key, double fallback) {
      const pickle::Value* found = values.find(key);
      return found != nullptr ? found->as_double().value_or(fallback) : fallback;
    };
    const auto flag = [&](const char* key, bool fallback) {
      const pickle::Value* found = values.find(key);
      return found != nullptr ? found->as_bool().value_or(fallback) : fallback;
    };
    set_learning_rate(number("lr", learning_rate()));
    options_.maximize = flag("maximize", options_.maximize);
    options_.nesterov = flag("nesterov", options_.nesterov);
    options_.weight_decay = number("weight_decay", options_.weight_decay);
    options_.dampening = number("dampening", options_.dampening);
    if (options_.momentum != 0) options_.momentum = number("momentum", options_.momentum);
  }

 protected:
  // The kernel initialises momentum buffers on their first step, all of one call or none.
  void update(std::span<const std::size_t> indices) override {
    if (options_.momentum == 0) {
      run(indices, {}, false);
      return;
    }
    std::vector<std::size_t> first;
    std::vector<std::size_t> later;
    for (const std::size_t i : indices) (buffers_[i].started ? later : first).push_back(i);
    for (auto* const group : {&first, &later}) {
      if (group->empty()) continue;
      std::vector<at::Tensor> buffers;
      for (const std::size_t i : *group) {
        buffers.push_back(buffers_[i].tensor);
        buffers_[i].started = true;
      }
      run(*group, buffers, group == &first);
    }
  }

 private:
  struct Buffer {
    at::Tensor tensor;
    bool started = false;
  };

  void run(std::span<const std::size_t> indices, const std::vector<at::Tensor>& buffers,
           bool first_step) {
    auto self = pick(parameters(), indices);
    at::_fused_sgd_(self, gradients(indices), buffers, options_.weight_decay, options_.momentum,
                    learning_rate(), options_.dampening, options_.nesterov, options_.maximize,
                    first_step);
  }

  SgdOptions options_;
  std::vector<Buffer> buffers_;
};

}  // namespace

OptimizerFactory sgd(SgdOptions options) {
  const auto check = [](bool valid, const char* key, const char* problem) {
    if (!valid) throw ConfigError(std::string("sgd.") + key, problem);
  };
  check(options.lr >= 0, "lr", "must not be negative");
  check(options.momentum >= 0, "momentum", "must not be negative");
  check(options.weight_decay >= 0, "weight_decay", "must not be negative");
  check(!options.nesterov || (options.momentum > 0 && options.dampening == 0), "nesterov",
        "needs a momentum above 0 and no dampening");
  return [options](std::vector<at::Tensor> parameters) {
    return std::make_unique<Sgd>(std::move(parameters), options);
  };
}

}  // namespace millrace
