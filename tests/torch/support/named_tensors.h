// Access to the tensors of a model by their state_dict names.
#pragma once

#include <ATen/core/Tensor.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "millrace/runtime/torch/model.h"

namespace millrace::test {

inline at::Tensor tensor_named(const Model& model, const std::string& name) {
  for (const Model::Entry& entry : model.entries()) {
    if (entry.name == name) return *entry.tensor;
  }
  throw std::out_of_range("no tensor " + name);
}

// As the strategies hand them to the optimizer: tied ones as often as they are registered.
inline std::vector<at::Tensor> parameters_of(const Model& model) {
  std::vector<at::Tensor> parameters;
  for (const Model::Entry& entry : model.entries()) {
    if (!entry.buffer) parameters.push_back(*entry.tensor);
  }
  return parameters;
}

inline std::vector<std::string> names_of(const Model& model) {
  std::vector<std::string> names;
  for (const Model::Entry& entry : model.entries()) names.push_back(entry.name);
  return names;
}

}  // namespace millrace::test
