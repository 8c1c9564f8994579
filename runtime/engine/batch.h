// One batch as the loader yields it: raw host buffers, one per field of the data set. Tensors are
// made of them on the train context, by the strategy.
//
// By convention field 0 is the input and field 1 the target. The loader owns the batch; its bytes
// are the loader's or a device's pinned memory (BatchMemory). It is valid until the loader's next
// call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "millrace/runtime/engine/tensor_view.h"

namespace millrace {

class Batch {
 public:
  struct Field {
    DType dtype = DType::kFloat32;
    std::vector<std::int64_t> sizes;  // the first is the number of samples
    std::span<std::byte> bytes;

    TensorView view() const { return {dtype, sizes, bytes}; }
  };

  std::int64_t size() const noexcept { return size_; }
  const std::vector<Field>& fields() const noexcept { return fields_; }
  std::vector<Field>& fields() noexcept { return fields_; }
  // Every field's first size becomes `samples`.
  void resize(std::int64_t samples);

 private:
  std::vector<Field> fields_;
  std::int64_t size_ = 0;
};

}  // namespace millrace
