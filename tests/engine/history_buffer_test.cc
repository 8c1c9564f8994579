#include "millrace/runtime/engine/history_buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <random>

namespace millrace {
namespace {

// What a history is, without any cleverness.
class Model {
 public:
  explicit Model(std::size_t max_length) : max_length_(max_length) {}
  void update(double value, double count) {
    entries_.push_back({value, count});
    if (entries_.size() > max_length_) entries_.pop_front();
  }
  std::vector<HistoryBuffer::Entry> newest(std::size_t n) const {
    if (n == 0 || n > entries_.size()) n = entries_.size();
    return {entries_.end() - static_cast<std::ptrdiff_t>(n), entries_.end()};
  }
  std::size_t size() const { return entries_.size(); }

 private:
  std::size_t max_length_;
  std::deque<HistoryBuffer::Entry> entries_;
};

void expect_equal(const HistoryBuffer& buffer, const Model& model, std::size_t window) {
  const auto entries = model.newest(window);
  double sum = 0, count = 0, low = entries[0].value, high = entries[0].value;
  for (const auto& entry : entries) {
    sum += entry.value;
    count += entry.count;
    low = std::min(low, entry.value);
    high = std::max(high, entry.value);
  }
  ASSERT_EQ(buffer.size(), model.size());
  ASSERT_EQ(buffer.mean(window), sum / count);
  ASSERT_EQ(buffer.min(window), low);
  ASSERT_EQ(buffer.max(window), high);
  ASSERT_EQ(buffer.current(), entries.back().value);
  const auto newest = buffer.newest(window == 0 ? 1000 : window);
  ASSERT_EQ(newest.size(), entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    ASSERT_EQ(newest[i].value, entries[i].value);
    ASSERT_EQ(newest[i].count, entries[i].count);
  }
}

TEST(HistoryBuffer, EqualsTheNaiveModelThroughManyCompactions) {
  for (const std::size_t max_length : {1u, 2u, 3u, 7u, 64u}) {
    SCOPED_TRACE(max_length);
    HistoryBuffer buffer(max_length);
    Model model(max_length);
    std::mt19937 random(static_cast<unsigned>(max_length));
    for (int step = 0; step < 400; ++step) {
      const double value = static_cast<double>(random() % 1000) - 500;
      const double count = 1 + static_cast<double>(random() % 4);
      buffer.update(value, count);
      model.update(value, count);
      for (const std::size_t window : {0u, 1u, 2u, 5u, 200u}) {
        ASSERT_NO_FATAL_FAILURE(expect_equal(buffer, model, window));
      }
    }
  }
}

TEST(HistoryBuffer, NothingIsNotANumber) {
  const HistoryBuffer buffer;
  EXPECT_TRUE(buffer.empty());
  EXPECT_TRUE(std::isnan(buffer.mean()));
  EXPECT_TRUE(std::isnan(buffer.min(3)));
  EXPECT_TRUE(std::isnan(buffer.max()));
  EXPECT_TRUE(std::isnan(buffer.current()));
  EXPECT_TRUE(buffer.newest(5).empty());
}

TEST(HistoryBuffer, AssignReplacesAndKeepsTheNewest) {
  HistoryBuffer buffer(3);
  buffer.update(9);
  buffer.assign({{1, 1}, {2, 1}, {3, 1}, {4, 1}, {5, 1}});
  EXPECT_EQ(buffer.size(), 3u);
  EXPECT_EQ(buffer.min(), 3);
  buffer.update(6);
  EXPECT_EQ(buffer.size(), 3u);
  EXPECT_EQ(buffer.min(), 4);
}

}  // namespace
}  // namespace millrace
