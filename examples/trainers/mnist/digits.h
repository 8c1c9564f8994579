// 5,000 real MNIST digits from a gzipped table: one digit per line, 784 pixels (0..255), then the
// label. The file is sorted by label, so it is split by label into training and hold-out parts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "millrace/runtime/engine/dataset.h"

struct Digits {
  std::shared_ptr<const millrace::Dataset> train,
      holdout;  // float32 [1, 28, 28] in 0..1; int64 label
};

// Throws millrace::ConfigError naming the file, and the line when one is wrong.
Digits load_digits(const std::filesystem::path& file, double holdout, std::uint64_t seed);
