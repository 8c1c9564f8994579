#include "millrace/runtime/torch/optimizer.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <set>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/state_gate.h"
#include "millrace/runtime/torch/tensor_bytes.h"

namespace millrace {

struct Optimizer::Tensors {
  std::vector<at::Tensor> parameters;
};

Optimizer::Optimizer(std::vector<at::Tensor> parameters, double learning_rate)
    : tensors_(std::make_unique<Tensors>()), learning_rate_(learning_rate) {
  std::set<const void*> seen;
  for (at::Tensor& parameter : parameters) {
    if (seen.insert(parameter.unsafeGetTensorImpl()).second) {
      tensors_->parameters.push_back(std::move(parameter));
    }
  }
  if (tensors_->parameters.empty()) throw ConfigError("optimizer", "the model has no parameters");
}

Optimizer::~Optimizer() = default;

const std::vector<at::Tensor>& Optimizer::parameters() const noexcept {
  return tensors_->parameters;
}

void Optimizer::step(StateGate& gate) {
  const at::NoGradGuard no_grad;
  std::vector<std::size_t> with_gradient;
  for (std::size_t i = 0; i < parameters().size(); ++i) {
    if (parameters()[i].grad().defined()) with_gradient.push_back(i);
  }
  if (gate.open()) {
    if (!with_gradient.empty()) update(with_gradient);
  } else {
    for (const std::size_t i : with_gradient) {
      gate.writable(storage_bytes(parameters()[i]));
      for (const auto& [name, tensor] : state(i)) gate.writable(storage_bytes(tensor));
      update({&i, 1});
    }
  }
  for (const std::size_t i : with_gradient) parameters()[i].mutable_grad().reset();
}

std::vector<at::Tensor> Optimizer::pick(const std::vector<at::Tensor>& all,
                                        std::span<const std::size_t> indices) const {
  std::vector<at::Tensor> picked;
  picked.reserve(indices.size());
  for (const std::size_t i : indices) picked.push_back(all[i]);
  return picked;
}

std::vector<at::Tensor> Optimizer::gradients(std::span<const std::size_t> indices) const {
  std::vector<at::Tensor> picked;
  picked.reserve(indices.size());
  for (const std::size_t i : indices) picked.push_back(parameters()[i].grad());
  return picked;
}

}  // namespace millrace
