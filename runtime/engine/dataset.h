// Data sets: random access to samples of fixed shape.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "millrace/runtime/engine/batch.h"

namespace millrace {

// The shape of one field of one sample.
struct FieldSpec {
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> sizes;  // without the batch dimension; empty for a scalar

  std::size_t bytes_per_sample() const;
};

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual std::int64_t size() const = 0;
  virtual std::span<const FieldSpec> fields() const = 0;
  // Copies sample `index` into `out[f]`, which has fields()[f].bytes_per_sample() bytes. May be
  // called from several threads at once.
  virtual void read(std::int64_t index, std::span<std::byte* const> out) const = 0;
};

// All samples in memory, one contiguous buffer per field.
class InMemoryDataset final : public Dataset {
 public:
  struct Column {
    FieldSpec spec;
    std::vector<std::byte> bytes;  // size() samples one after the other
  };

  // Throws ConfigError when the columns do not hold the same number of samples.
  explicit InMemoryDataset(std::vector<Column> columns);

  // A column of `values`, `values.size() / samples` of them per sample.
  template <class T>
  static Column column(DType dtype, std::vector<std::int64_t> sizes, std::span<const T> values) {
    const auto bytes = std::as_bytes(values);
    return {{dtype, std::move(sizes)}, {bytes.begin(), bytes.end()}};
  }

  std::int64_t size() const override { return size_; }
  std::span<const FieldSpec> fields() const override { return specs_; }
  void read(std::int64_t index, std::span<std::byte* const> out) const override;

 private:
  std::vector<FieldSpec> specs_;
  std::vector<std::vector<std::byte>> bytes_;
  std::int64_t size_ = 0;
};

// Two parts of [0, labels.size()), the second with about `holdout` of every label, drawn by `seed`:
// what a file sorted by label needs before it can be split. Both parts keep the original order.
struct StratifiedSplit {
  std::vector<std::int64_t> train, holdout;
};
StratifiedSplit stratified_split(std::span<const std::int64_t> labels, double holdout,
                                 std::uint64_t seed);

}  // namespace millrace
