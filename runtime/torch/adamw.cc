#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/state_gate.h"
#include "millrace/runtime/torch/optimizer.h"
#include "millrace/runtime/torch/tensor_bytes.h"

namespace millrace {
namespace {

class AdamW final : public Optimizer {
 public:
  AdamW(std::vector<at::Tensor> parameters_given, const AdamWOptions& options)
      : Optimizer(std::move(parameters_given), options.lr), options_(options) {
    const auto count = static_cast<std::int64_t>(parameters().size());
    // One storage for all step counters: small, and one entry in the file.
    steps_all_ = at::zeros({count}, at::kFloat);
    for (std::int64_t i = 0; i < count; ++i) {
      const at::Tensor& parameter = parameters()[static_cast<std::size_t>(i)];
      steps_.push_back(steps_all_.select(0, i));
      const bool trained = parameter.requires_grad();
      averages_.push_back(trained ? at::zeros_like(parameter) : at::Tensor());
      squares_.push_back(trained ? at::zeros_like(parameter) : at::Tensor());
      maxima_.push_back(trained && options_.amsgrad ? at::zeros_like(parameter) : at::Tensor());
    }
  }

  NamedTensors state(std::size_t i) const override {
    if (!averages_[i].defined()) return {};
    NamedTensors tensors = {
        {"step", steps_[i]}, {"exp_avg", averages_[i]}, {"exp_avg_sq", squares_[i]}};
    if (options_.amsgrad) tensors.emplace_back("max_exp_avg_sq", maxima_[i]);
    return tensors;
  }

  std::vector<std::string> state_names() const override {
    std::vector<std::string> names = {"step", "exp_avg", "exp_avg_sq"};
    if (options_.amsgrad) names.emplace_back("max_exp_avg_sq");
    return names;
  }

  void load_state(std::size_t i, const NamedTensors& loaded, StateGate& gate) override {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : state(i)) {
      gate.writable(storage_bytes(tensor));
      for (const auto& [loaded_name, value] : loaded) {
        if (loaded_name == name) tensor.copy_(value);
      }
    }
  }

  void clear_state(std::size_t i, StateGate& gate) override {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : state(i)) {
      gate.writable(storage_bytes(tensor));
      tensor.zero_();
    }
  }

  pickle::Value group() const override {
    pickle::Value values = pickle::Value::dict();
    values.set("lr", learning_rate());
    values.set("betas", pickle::Value::tuple({options_.beta1, options_.beta2}));
    values.set("eps", options_.eps);
    values.set("weight_decay", options_.weight_decay);
    values.set("amsgrad", options_.amsgrad);
    values.set("maximize", options_.maximize);
    values.set("foreach", pickle::Value());
    values.set("capturable", false);
    values.set("differentiable", false);
    values.set("fused", pickle::Value());
    values.set("decoupled_weight_decay", true);
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
    options_.eps = number("eps", options_.eps);
    options_.weight_decay = number("weight_decay", options_.weight_decay);
    const pickle::Value* betas = values.find("betas");
    const auto* items = betas != nullptr ? betas->as_sequence() : nullptr;
    if (items != nullptr && items->size() == 2) {
      options_.beta1 = (*items)[0].as_double().value_or(options_.beta1);
      options_.beta2 = (*items)[1].as_double().value_or(options_.beta2);
    }
  }

 protected:
  void update(std::span<const std::size_t> indices) override {
    auto steps = pick(steps_, indices);
    if (indices.size() == steps_.size()) {
      steps_all_.add_(1);
    } else {
      for (at::Tensor& step : steps) step.add_(1);
    }
    auto self = pick(parameters(), indices);
    auto averages = pick(averages_, indices);
    auto squares = pick(squares_, indices);
    const auto maxima = options_.amsgrad ? pick(maxima_, indices) : std::vector<at::Tensor>();
    at::_fused_adamw_(self, gradients(indices), averages, squares, maxima, steps, learning_rate(),
                      options_.beta1, options_.beta2, options_.weight_decay, options_.eps,
                      options_.amsgrad, options_.maximize);
  }

 private:
  AdamWOptions options_;
  at::Tensor steps_all_;
  std::vector<at::Tensor> steps_;                        // views of steps_all_
  std::vector<at::Tensor> averages_, squares_, maxima_;  // undefined for frozen parameters
};

void require(bool valid, const char* key, const std::string& problem) {
  if (!valid) throw ConfigError(std::string("adamw.") + key, problem);
}

}  // namespace

OptimizerFactory adamw(AdamWOptions options) {
  require(options.lr >= 0, "lr", "must not be negative, got " + std::to_string(options.lr));
  require(options.eps >= 0, "eps", "must not be negative");
  require(options.weight_decay >= 0, "weight_decay", "must not be negative");
  require(options.beta1 >= 0 && options.beta1 < 1, "beta1", "must be at least 0 and below 1");
  require(options.beta2 >= 0 && options.beta2 < 1, "beta2", "must be at least 0 and below 1");
  return [options](std::vector<at::Tensor> parameters) {
    return std::make_unique<AdamW>(std::move(parameters), options);
  };
}

}  // namespace millrace
