// Sets of parameters with made-up gradients, to drive optimizers without a model.
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/randn.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "millrace/runtime/torch/optimizer.h"

namespace millrace::test {

inline constexpr std::size_t kFrozen = 3;

inline at::Tensor random_tensor(at::IntArrayRef sizes, std::uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randn(sizes, generator);
}

// The same values at every call: a matrix, a view into a larger storage, a number, a frozen one,
// and one large enough to be staged by the copier.
inline std::vector<at::Tensor> some_parameters() {
  std::vector<at::Tensor> parameters = {
      random_tensor({4, 5}, 1), random_tensor({40}, 2).narrow(0, 3, 7), random_tensor({}, 3),
      random_tensor({6}, 4), random_tensor({80, 90}, 5)};
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    parameters[i].set_requires_grad(i != kFrozen);
  }
  return parameters;
}

// Gradients of step `step`, the same for every set. Parameter `without` gets none.
inline void set_gradients(const std::vector<at::Tensor>& parameters, std::uint64_t step,
                          std::size_t without = SIZE_MAX) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters[i].requires_grad()) continue;
    if (i == without) {
      parameters[i].mutable_grad().reset();
    } else {
      parameters[i].mutable_grad() = random_tensor(parameters[i].sizes(), 100 + step * 10 + i);
    }
  }
}

inline std::vector<at::Tensor> clones(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> copies;
  for (const at::Tensor& tensor : tensors) copies.push_back(tensor.detach().clone());
  return copies;
}

// Parameters and their states, as independent copies.
inline std::vector<at::Tensor> whole_state(const Optimizer& optimizer) {
  std::vector<at::Tensor> all = clones(optimizer.parameters());
  for (std::size_t i = 0; i < optimizer.parameters().size(); ++i) {
    for (const at::Tensor& tensor : optimizer.state(i)) all.push_back(tensor.clone());
  }
  return all;
}

inline bool bit_equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!a[i].equal(b[i])) return false;
  }
  return true;
}

}  // namespace millrace::test
