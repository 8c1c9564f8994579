// A data set made of tensors: one column per tensor, the first dimension counts the samples.
#pragma once

#include <memory>
#include <vector>

#include "millrace/runtime/engine/dataset.h"

namespace at {
class Tensor;
}

namespace millrace {

// Copies the tensors. Throws ConfigError when they do not hold the same number of samples.
std::shared_ptr<const Dataset> tensor_dataset(const std::vector<at::Tensor>& columns);

}  // namespace millrace
