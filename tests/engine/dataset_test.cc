#include "millrace/runtime/engine/dataset.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <map>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

InMemoryDataset::Column bytes_column(std::vector<std::int64_t> sizes, std::size_t bytes) {
  return {{DType::kFloat32, std::move(sizes)}, std::vector<std::byte>(bytes)};
}

std::string error_of(std::vector<InMemoryDataset::Column> columns) {
  try {
    const InMemoryDataset dataset(std::move(columns));
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Dataset, ReadsOneSampleOfEveryField) {
  const std::vector<float> x = {0, 1, 2, 3, 4, 5};
  const std::vector<std::int64_t> y = {7, 8, 9};
  const InMemoryDataset dataset({InMemoryDataset::column<float>(DType::kFloat32, {2}, x),
                                 InMemoryDataset::column<std::int64_t>(DType::kInt64, {}, y)});
  EXPECT_EQ(dataset.size(), 3);
  ASSERT_EQ(dataset.fields().size(), 2u);
  EXPECT_EQ(dataset.fields()[0].bytes_per_sample(), 8u);
  EXPECT_EQ(dataset.fields()[1].bytes_per_sample(), 8u);
  float pair[2];
  std::int64_t label = 0;
  std::byte* const out[] = {reinterpret_cast<std::byte*>(pair),
                            reinterpret_cast<std::byte*>(&label)};
  dataset.read(2, out);
  EXPECT_EQ(pair[0], 4);
  EXPECT_EQ(pair[1], 5);
  EXPECT_EQ(label, 9);
}

TEST(Dataset, ColumnsMustHoldWholeSamplesAndTheSameNumber) {
  EXPECT_THAT(error_of({bytes_column({2}, 12)}), HasSubstr("12 bytes are no whole number"));
  EXPECT_THAT(error_of({bytes_column({0}, 12)}), HasSubstr("samples of 0 bytes"));
  EXPECT_THAT(error_of({bytes_column({2}, 16), bytes_column({1}, 4)}),
              HasSubstr("dataset.column[1]: holds 1 samples, column 0 holds 2"));
}

TEST(StratifiedSplit, HoldsOutItsShareOfEveryLabel) {
  std::vector<std::int64_t> labels;  // sorted by label, as files often are
  for (std::int64_t label = 0; label < 5; ++label) labels.insert(labels.end(), 20 + label, label);
  const StratifiedSplit split = stratified_split(labels, 0.2, 1);
  std::map<std::int64_t, int> held;
  for (const std::int64_t index : split.holdout) ++held[labels[static_cast<std::size_t>(index)]];
  EXPECT_EQ(held, (std::map<std::int64_t, int>{{0, 4}, {1, 4}, {2, 4}, {3, 5}, {4, 5}}));
  EXPECT_TRUE(std::is_sorted(split.train.begin(), split.train.end()));
  EXPECT_TRUE(std::is_sorted(split.holdout.begin(), split.holdout.end()));
  std::vector<std::int64_t> all;
  std::merge(split.train.begin(), split.train.end(), split.holdout.begin(), split.holdout.end(),
             std::back_inserter(all));
  for (std::size_t i = 0; i < labels.size(); ++i) {
    ASSERT_EQ(all[i], static_cast<std::int64_t>(i)) << "every sample is in exactly one part";
  }
  ASSERT_EQ(all.size(), labels.size());
}

TEST(StratifiedSplit, TheSeedDecides) {
  const std::vector<std::int64_t> labels(50, 3);
  EXPECT_EQ(stratified_split(labels, 0.3, 1).holdout, stratified_split(labels, 0.3, 1).holdout);
  EXPECT_NE(stratified_split(labels, 0.3, 1).holdout, stratified_split(labels, 0.3, 2).holdout);
}

TEST(StratifiedSplit, TheShareMustBeBetweenZeroAndOne) {
  const std::vector<std::int64_t> labels(5, 0);
  for (const double share : {0.0, 1.0, -1.0, 2.0}) {
    EXPECT_THROW(stratified_split(labels, share, 1), ConfigError) << share;
  }
}

}  // namespace
}  // namespace millrace
