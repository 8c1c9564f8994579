#include "millrace/runtime/torch/tensor_dataset.h"

#include <ATen/core/Tensor.h>

#include <utility>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/torch/tensor_bytes.h"

namespace millrace {

std::shared_ptr<const Dataset> tensor_dataset(const std::vector<at::Tensor>& columns) {
  std::vector<InMemoryDataset::Column> copies;
  for (const at::Tensor& column : columns) {
    if (column.dim() == 0) throw ConfigError("dataset", "a column needs a first dimension");
    const at::Tensor host = column.detach().cpu().contiguous();
    InMemoryDataset::Column copy;
    copy.spec.dtype = dtype_of(host);
    copy.spec.sizes.assign(host.sizes().begin() + 1, host.sizes().end());
    const auto* const first = static_cast<const std::byte*>(host.const_data_ptr());
    copy.bytes.assign(first, first + host.nbytes());
    copies.push_back(std::move(copy));
  }
  return std::make_shared<InMemoryDataset>(std::move(copies));
}

}  // namespace millrace
