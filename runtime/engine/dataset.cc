#include "millrace/runtime/engine/dataset.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/sampler.h"

namespace millrace {

void Batch::resize(std::int64_t samples) {
  size_ = samples;
  for (Field& field : fields_) field.sizes.front() = samples;
}

std::size_t FieldSpec::bytes_per_sample() const {
  std::size_t bytes = dtype_size(dtype);
  for (const std::int64_t size : sizes) bytes *= static_cast<std::size_t>(size);
  return bytes;
}

InMemoryDataset::InMemoryDataset(std::vector<Column> columns) {
  for (std::size_t f = 0; f < columns.size(); ++f) {
    const std::size_t sample = columns[f].spec.bytes_per_sample();
    const std::size_t bytes = columns[f].bytes.size();
    const std::string key = "dataset.column[" + std::to_string(f) + "]";
    if (sample == 0 || bytes % sample != 0) {
      throw ConfigError(key, std::to_string(bytes) + " bytes are no whole number of samples of " +
                                 std::to_string(sample) + " bytes");
    }
    const auto samples = static_cast<std::int64_t>(bytes / sample);
    if (f > 0 && samples != size_) {
      throw ConfigError(key, "holds " + std::to_string(samples) + " samples, column 0 holds " +
                                 std::to_string(size_));
    }
    size_ = samples;
    specs_.push_back(std::move(columns[f].spec));
    bytes_.push_back(std::move(columns[f].bytes));
  }
}

void InMemoryDataset::read(std::int64_t index, std::span<std::byte* const> out) const {
  for (std::size_t f = 0; f < specs_.size(); ++f) {
    const std::size_t sample = specs_[f].bytes_per_sample();
    std::memcpy(out[f], bytes_[f].data() + static_cast<std::size_t>(index) * sample, sample);
  }
}

StratifiedSplit stratified_split(std::span<const std::int64_t> labels, double holdout,
                                 std::uint64_t seed) {
  if (!(holdout > 0 && holdout < 1)) {
    throw ConfigError("holdout", "must be between 0 and 1, got " + std::to_string(holdout));
  }
  std::map<std::int64_t, std::vector<std::int64_t>> by_label;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    by_label[labels[i]].push_back(static_cast<std::int64_t>(i));
  }
  StratifiedSplit split;
  for (auto& [label, indices] : by_label) {
    shuffle(indices, seed + static_cast<std::uint64_t>(label));
    const auto kept = static_cast<std::ptrdiff_t>(
        std::lround(static_cast<double>(indices.size()) * (1 - holdout)));
    split.train.insert(split.train.end(), indices.begin(), indices.begin() + kept);
    split.holdout.insert(split.holdout.end(), indices.begin() + kept, indices.end());
  }
  std::sort(split.train.begin(), split.train.end());
  std::sort(split.holdout.begin(), split.holdout.end());
  return split;
}

}  // namespace millrace
