#include "millrace/io/dtype.h"

#include <array>

namespace millrace {
namespace {

struct Row {
  std::size_t size;
  std::string_view name, storage_class;
};

constexpr std::array<Row, 12> kRows{{
    {4, "float32", "FloatStorage"},
    {8, "float64", "DoubleStorage"},
    {2, "float16", "HalfStorage"},
    {2, "bfloat16", "BFloat16Storage"},
    {8, "int64", "LongStorage"},
    {4, "int32", "IntStorage"},
    {2, "int16", "ShortStorage"},
    {1, "int8", "CharStorage"},
    {1, "uint8", "ByteStorage"},
    {1, "bool", "BoolStorage"},
    {8, "complex64", "ComplexFloatStorage"},
    {16, "complex128", "ComplexDoubleStorage"},
}};

const Row& row(DType dtype) { return kRows.at(static_cast<std::size_t>(dtype)); }

}  // namespace

std::size_t dtype_size(DType dtype) { return row(dtype).size; }
std::string_view dtype_name(DType dtype) { return row(dtype).name; }
std::string_view dtype_storage_class(DType dtype) { return row(dtype).storage_class; }

std::optional<DType> dtype_of_storage_class(std::string_view name) {
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    if (kRows[i].storage_class == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

}  // namespace millrace
