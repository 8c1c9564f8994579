// Between LibTorch's tensors and the torch-free world: element types, bytes, leaves.
#pragma once

#include <cstddef>
#include <span>

#include "millrace/io/dtype.h"
#include "millrace/runtime/engine/tensor_view.h"

namespace at {
class Tensor;
}
namespace c10 {
struct Device;
}

namespace millrace {

class CheckpointFile;
namespace pickle {
struct TensorRef;
}

// Throws Error for a type that .pth files of ours cannot hold (quantized, bits).
DType dtype_of(const at::Tensor& tensor);

// The whole storage a tensor lives in, where it is.
std::span<const std::byte> storage_bytes(const at::Tensor& tensor);

// A tensor over host bytes that outlive it; no copy. Or over bytes of a device.
at::Tensor tensor_over(const TensorView& view);
at::Tensor tensor_over(const TensorView& view, c10::Device place);
// The tensor a leaf of `file` describes, over the file's bytes; no copy.
at::Tensor tensor_over(const CheckpointFile& file, const pickle::TensorRef& leaf);

}  // namespace millrace
