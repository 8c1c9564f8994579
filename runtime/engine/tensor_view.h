// Host tensors without LibTorch: how data and predictions cross into code that must not include it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <span>
#include <vector>

#include "millrace/io/dtype.h"

namespace millrace {

// Contiguous, row-major, in host memory; owns nothing.
struct TensorView {
  DType dtype = DType::kFloat32;
  std::span<const std::int64_t> sizes;
  std::span<const std::byte> bytes;

  std::int64_t numel() const {
    return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{1}, std::multiplies<>());
  }
  template <class T>
  std::span<const T> as() const {
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
};

}  // namespace millrace
