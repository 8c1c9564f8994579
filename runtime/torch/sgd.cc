#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_sgd.h>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/torch/fused_step.h"
#include "millrace/runtime/torch/optimizer.h"

namespace millrace {
namespace {

class Sgd final : public Optimizer {
 public:
  Sgd(std::vector<at::Tensor> parameters_given, const SgdOptions& options)
      : Optimizer(std::move(parameters_given), options.lr, state_layout(options)),
        options_(options) {
    group_.number("lr", learning_rate_);
    if (options_.momentum != 0) {
      group_.number("momentum", options_.momentum);
    } else {
      group_.fixed("momentum", 0.0);  // there is no buffer for another one
    }
    group_.number("dampening", options_.dampening)
        .number("weight_decay", options_.weight_decay)
        .flag("nesterov", options_.nesterov)
        .flag("maximize", options_.maximize)
        .fixed("foreach", pickle::Value())
        .fixed("differentiable", false)
        .fixed("fused", pickle::Value());
  }

 protected:
  // The first momentum is the gradient itself.
  void update(FusedLists& lists, bool first_step) override {
    at::_fused_sgd_(lists.parameters, lists.gradients,
                    lists.states.empty() ? at::TensorList() : at::TensorList(lists.states[0]),
                    options_.weight_decay, options_.momentum, learning_rate_, options_.dampening,
                    options_.nesterov, options_.maximize, first_step);
  }

 private:
  static StateLayout state_layout(const SgdOptions& options) {
    StateLayout layout;
    if (options.momentum != 0) layout.names.emplace_back("momentum_buffer");
    return layout;
  }

  SgdOptions options_;
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
