#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adamw.h>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/torch/fused_step.h"
#include "millrace/runtime/torch/optimizer.h"

namespace millrace {
namespace {

class AdamW final : public Optimizer {
 public:
  AdamW(std::vector<at::Tensor> parameters_given, const AdamWOptions& options)
      : Optimizer(std::move(parameters_given), options.lr, state_layout(options)),
        options_(options) {
    group_.number("lr", learning_rate_)
        .pair("betas", options_.beta1, options_.beta2)
        .number("eps", options_.eps)
        .number("weight_decay", options_.weight_decay)
        .fixed("amsgrad", options_.amsgrad)  // decides which states there are
        .flag("maximize", options_.maximize)
        .fixed("foreach", pickle::Value())
        .fixed("capturable", false)
        .fixed("differentiable", false)
        .fixed("fused", pickle::Value())
        .fixed("decoupled_weight_decay", true);
  }

 protected:
  void update(FusedLists& lists, bool) override {
    at::_fused_adamw_(lists.parameters, lists.gradients, lists.states[1], lists.states[2],
                      options_.amsgrad ? at::TensorList(lists.states[3]) : at::TensorList(),
                      lists.states[0], learning_rate_, options_.beta1, options_.beta2,
                      options_.weight_decay, options_.eps, options_.amsgrad, options_.maximize);
  }

 private:
  static StateLayout state_layout(const AdamWOptions& options) {
    StateLayout layout{{"step", "exp_avg", "exp_avg_sq"}, true};
    if (options.amsgrad) layout.names.emplace_back("max_exp_avg_sq");
    return layout;
  }

  AdamWOptions options_;
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
