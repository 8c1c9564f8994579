// One scalar's history: values with counts, the newest `max_length` of them.
//
// A value recorded with count n is a sum over n things; mean() is the sum of values over the sum of
// counts, as in the reference's HistoryBuffer. Appending is amortised O(1).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace millrace {

class HistoryBuffer {
 public:
  static constexpr std::size_t kMaxLength = 1'000'000;

  explicit HistoryBuffer(std::size_t max_length = kMaxLength) : max_length_(max_length) {}

  void update(double value, double count = 1);

  bool empty() const noexcept { return values_.size() == first_; }
  std::size_t size() const noexcept { return values_.size() - first_; }
  // Over the newest `window` entries (0: all). An empty buffer gives NaN.
  double mean(std::size_t window = 0) const;
  double min(std::size_t window = 0) const;
  double max(std::size_t window = 0) const;
  double current() const;

  struct Entry {
    double value, count;
  };
  // The newest `limit` entries, oldest first: what a checkpoint keeps.
  std::vector<Entry> newest(std::size_t limit) const;
  // Replaces everything by the newest max_length of them.
  void assign(const std::vector<Entry>& entries);

 private:
  template <class Fold>
  double fold(std::size_t window, Fold fold) const;

  std::vector<Entry> values_;  // entries before first_ are dropped ones, compacted now and then
  std::size_t first_ = 0;
  std::size_t max_length_;
};

}  // namespace millrace
