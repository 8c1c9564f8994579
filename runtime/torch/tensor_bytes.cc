#include "millrace/runtime/torch/tensor_bytes.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>

#include <string>
#include <utility>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_file.h"

namespace millrace {
namespace {

constexpr std::pair<DType, at::ScalarType> kTypes[] = {
    {DType::kFloat32, at::kFloat},
    {DType::kFloat64, at::kDouble},
    {DType::kFloat16, at::kHalf},
    {DType::kBFloat16, at::kBFloat16},
    {DType::kInt64, at::kLong},
    {DType::kInt32, at::kInt},
    {DType::kInt16, at::kShort},
    {DType::kInt8, at::kChar},
    {DType::kUInt8, at::kByte},
    {DType::kBool, at::kBool},
    {DType::kComplex64, at::kComplexFloat},
    {DType::kComplex128, at::kComplexDouble},
};

at::ScalarType scalar_type_of(DType dtype) {
  for (const auto& [ours, theirs] : kTypes) {
    if (ours == dtype) return theirs;
  }
  throw Error("no LibTorch type for " + std::string(dtype_name(dtype)));
}

}  // namespace

DType dtype_of(const at::Tensor& tensor) {
  for (const auto& [ours, theirs] : kTypes) {
    if (theirs == tensor.scalar_type()) return ours;
  }
  throw Error(std::string("tensors of type ") + at::toString(tensor.scalar_type()) +
              " cannot be saved");
}

std::span<const std::byte> storage_bytes(const at::Tensor& tensor) {
  const auto& storage = tensor.storage();
  return {static_cast<const std::byte*>(storage.data()), storage.nbytes()};
}

at::Tensor tensor_over(const TensorView& view) { return tensor_over(view, at::kCPU); }

at::Tensor tensor_over(const TensorView& view, c10::Device place) {
  void* const data = const_cast<std::byte*>(view.bytes.data());
  return at::from_blob(data, at::IntArrayRef(view.sizes.data(), view.sizes.size()),
                       at::TensorOptions(scalar_type_of(view.dtype)).device(place));
}

at::Tensor tensor_over(const CheckpointFile& file, const pickle::TensorRef& leaf) {
  const auto bytes = file.storage(leaf);
  void* const data = const_cast<std::byte*>(bytes.data()) +
                     static_cast<std::size_t>(leaf.offset) * dtype_size(leaf.dtype);
  return at::from_blob(data, leaf.sizes, leaf.strides,
                       at::TensorOptions(scalar_type_of(leaf.dtype)));
}

}  // namespace millrace
