#include "millrace/runtime/engine/history_buffer.h"

#include <algorithm>
#include <limits>

namespace millrace {
namespace {
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
}

void HistoryBuffer::update(double value, double count) {
  values_.push_back({value, count});
  if (size() <= max_length_) return;
  ++first_;
  if (first_ >= max_length_) {  // as many dropped as kept: moving them costs O(1) per update
    values_.erase(values_.begin(), values_.begin() + static_cast<std::ptrdiff_t>(first_));
    first_ = 0;
  }
}

double HistoryBuffer::mean(std::size_t window) const {
  if (empty()) return kNone;
  const std::size_t n = window == 0 ? size() : std::min(window, size());
  double sum = 0;
  double count = 0;
  for (std::size_t i = values_.size() - n; i < values_.size(); ++i) {
    sum += values_[i].value;
    count += values_[i].count;
  }
  return sum / count;
}

template <class Fold>
double HistoryBuffer::fold(std::size_t window, Fold fold) const {
  if (empty()) return kNone;
  const std::size_t n = window == 0 ? size() : std::min(window, size());
  double result = values_.back().value;
  for (std::size_t i = values_.size() - n; i < values_.size(); ++i) {
    result = fold(result, values_[i].value);
  }
  return result;
}

double HistoryBuffer::min(std::size_t window) const {
  return fold(window, [](double a, double b) { return std::min(a, b); });
}

double HistoryBuffer::max(std::size_t window) const {
  return fold(window, [](double a, double b) { return std::max(a, b); });
}

double HistoryBuffer::current() const { return empty() ? kNone : values_.back().value; }

std::vector<HistoryBuffer::Entry> HistoryBuffer::newest(std::size_t limit) const {
  const auto n = static_cast<std::ptrdiff_t>(std::min(limit, size()));
  return {values_.end() - n, values_.end()};
}

void HistoryBuffer::assign(const std::vector<Entry>& entries) {
  const auto n = static_cast<std::ptrdiff_t>(std::min(entries.size(), max_length_));
  values_.assign(entries.end() - n, entries.end());
  first_ = 0;
}

}  // namespace millrace
