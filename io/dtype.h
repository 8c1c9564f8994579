// Element types, by the names Python's torch uses. No LibTorch here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace millrace {

enum class DType : std::uint8_t {
  kFloat32,
  kFloat64,
  kFloat16,
  kBFloat16,
  kInt64,
  kInt32,
  kInt16,
  kInt8,
  kUInt8,
  kBool,
  kComplex64,
  kComplex128,
};

std::size_t dtype_size(DType dtype);                // bytes of one element
std::string_view dtype_name(DType dtype);           // float32
std::string_view dtype_storage_class(DType dtype);  // FloatStorage, as in torch.FloatStorage
std::optional<DType> dtype_of_storage_class(std::string_view name);

}  // namespace millrace
