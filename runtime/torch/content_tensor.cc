#include "millrace/runtime/torch/content_tensor.h"

#include <ATen/core/Tensor.h>

#include <memory>
#include <utility>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/torch/storage_table.h"
#include "millrace/runtime/torch/tensor_bytes.h"

namespace millrace {

pickle::Value add_tensor(CheckpointContent& content, const at::Tensor& tensor, Mutation mutation,
                         std::string name) {
  const at::Tensor row_major = tensor.detach().contiguous();
  const TensorView view{dtype_of(row_major),
                        {row_major.sizes().data(), row_major.sizes().size()},
                        {static_cast<const std::byte*>(row_major.const_data_ptr()),
                         static_cast<std::size_t>(row_major.nbytes())}};
  const bool own_memory = row_major.const_data_ptr() == tensor.const_data_ptr();
  std::function<std::string()> moved;
  if (own_memory && mutation == Mutation::kBehindGate) {
    auto table = std::make_shared<StorageTable>();
    table->add(tensor, mutation, std::move(name));
    moved = [watch = table->watch()] { return watch->moved(0); };
  }
  return content.tensor(view, mutation, std::make_shared<const at::Tensor>(row_major),
                        std::move(moved), !tensor.is_cpu());
}

at::Tensor tensor_of(const CheckpointContent& content, const pickle::Value& leaf) {
  const auto tensor = pickle::as_tensor(leaf);
  if (!tensor) throw CheckpointError(content.file().path(), "is asked for a tensor that is none");
  return tensor_over(content.file(), *tensor);
}

}  // namespace millrace
