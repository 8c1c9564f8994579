#include "millrace/runtime/engine/metric.h"

#include <gmock/gmock.h>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

// A batch with these labels, and scores [labels, scores/labels].
struct Scored {
  Scored(std::vector<std::int64_t> given, std::vector<float> values)
      : labels(std::move(given)), scores(std::move(values)) {
    const auto samples = static_cast<std::int64_t>(labels.size());
    batch.fields().resize(2);
    batch.fields()[0].sizes = {samples};
    batch.fields()[1] = {DType::kInt64, {samples}, std::as_writable_bytes(std::span(labels))};
    batch.resize(samples);
    sizes = {samples,
             static_cast<std::int64_t>(scores.size()) / std::max<std::int64_t>(samples, 1)};
  }
  TensorView view() const { return {DType::kFloat32, sizes, std::as_bytes(std::span(scores))}; }

  Batch batch;
  std::vector<std::int64_t> labels;
  std::vector<float> scores;
  std::vector<std::int64_t> sizes;
};

class Constant final : public Metric {
 public:
  explicit Constant(std::string name) : name_(std::move(name)) {}
  void reset() override {}
  void process(const TensorView&, const Batch&) override {}
  std::vector<MetricValue> compute() override { return {{name_, 1}}; }

 private:
  std::string name_;
};

TEST(Accuracy, IsTheShareOfSamplesOverAllBatches) {
  Accuracy accuracy;
  const Scored three({0, 1, 2}, {9, 1, 2, 1, 0, 3, 0, 1, 5});  // right, wrong, right
  const Scored one({1}, {0, 1, 0});                            // right
  accuracy.process(three.view(), three.batch);
  accuracy.process(one.view(), one.batch);
  const auto values = accuracy.compute();
  ASSERT_EQ(values.size(), 1u);
  EXPECT_EQ(values[0].name, "accuracy");
  EXPECT_EQ(values[0].value, 0.75);
  accuracy.reset();
  EXPECT_EQ(accuracy.compute()[0].value, 0) << "of nothing";
}

TEST(Accuracy, OtherShapesAreAConfigError) {
  const Scored scored({0, 1}, {1, 0, 0, 1});
  Accuracy accuracy("top1");
  TensorView flat = scored.view();
  const std::vector<std::int64_t> four = {4};
  flat.sizes = four;
  EXPECT_THROW(accuracy.process(flat, scored.batch), ConfigError);
  TensorView integers = scored.view();
  integers.dtype = DType::kInt32;
  EXPECT_THROW(accuracy.process(integers, scored.batch), ConfigError);
  Scored unlabelled({0, 1}, {1, 0, 0, 1});
  unlabelled.batch.fields().pop_back();
  EXPECT_THROW(accuracy.process(scored.view(), unlabelled.batch), ConfigError);
  const Scored more({0, 1, 1}, {1, 0, 0, 1, 1, 1});
  EXPECT_THROW(accuracy.process(scored.view(), more.batch), ConfigError);
}

TEST(Evaluator, FeedsEveryMetricAndKeepsTheirOrder) {
  std::vector<std::unique_ptr<Metric>> metrics;
  metrics.push_back(std::make_unique<Accuracy>("b"));
  metrics.push_back(std::make_unique<Accuracy>("a"));
  Evaluator evaluator(std::move(metrics));
  const Scored scored({0}, {1, 0});
  evaluator.process(scored.view(), scored.batch);
  const auto values = evaluator.compute();
  ASSERT_EQ(values.size(), 2u);
  EXPECT_EQ(values[0].name, "b");
  EXPECT_EQ(values[1].name, "a");
  EXPECT_EQ(values[1].value, 1);
  evaluator.reset();
  EXPECT_EQ(evaluator.compute()[0].value, 0);
}

TEST(Evaluator, TwoMetricsOfOneNameAreAConfigError) {
  std::vector<std::unique_ptr<Metric>> metrics;
  metrics.push_back(std::make_unique<Constant>("acc"));
  metrics.push_back(std::make_unique<Constant>("acc"));
  Evaluator evaluator(std::move(metrics));
  try {
    evaluator.compute();
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("two metrics give the same name 'acc'"));
  }
}

}  // namespace
}  // namespace millrace
