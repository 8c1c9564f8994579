#include "millrace/runtime/engine/metric.h"

#include <algorithm>
#include <set>
#include <utility>

#include "millrace/runtime/async/error.h"

namespace millrace {

void Accuracy::process(const TensorView& prediction, const Batch& batch) {
  const bool two_fields = batch.fields().size() > 1 && batch.fields()[1].dtype == DType::kInt64 &&
                          batch.fields()[1].sizes.size() == 1;
  if (prediction.dtype != DType::kFloat32 || prediction.sizes.size() != 2 || !two_fields ||
      prediction.sizes[0] != batch.size()) {
    throw ConfigError("metric." + name_,
                      "needs float32 scores [batch, classes] and an int64 label as field 1");
  }
  const auto scores = prediction.as<float>();
  const auto labels = batch.fields()[1].view().as<std::int64_t>();
  const auto classes = static_cast<std::size_t>(prediction.sizes[1]);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const auto row = scores.subspan(i * classes, classes);
    const auto best = std::max_element(row.begin(), row.end()) - row.begin();
    correct_ += best == labels[i] ? 1 : 0;
  }
  seen_ += batch.size();
}

std::vector<MetricValue> Accuracy::compute() {
  const double share = seen_ > 0 ? static_cast<double>(correct_) / static_cast<double>(seen_) : 0;
  return {{name_, share}};
}

Evaluator::Evaluator(std::vector<std::unique_ptr<Metric>> metrics) : metrics_(std::move(metrics)) {}

void Evaluator::reset() {
  for (auto& metric : metrics_) metric->reset();
}

void Evaluator::process(const TensorView& prediction, const Batch& batch) {
  for (auto& metric : metrics_) metric->process(prediction, batch);
}

std::vector<MetricValue> Evaluator::compute() {
  std::vector<MetricValue> all;
  std::set<std::string> names;
  for (auto& metric : metrics_) {
    for (MetricValue& value : metric->compute()) {
      if (!names.insert(value.name).second) {
        throw ConfigError("metrics", "two metrics give the same name '" + value.name + "'");
      }
      all.push_back(std::move(value));
    }
  }
  return all;
}

std::vector<std::string> Evaluator::names() const {
  std::vector<std::string> all;
  for (const auto& metric : metrics_) {
    const std::vector<std::string> names = metric->names();
    if (names.empty()) return {};
    all.insert(all.end(), names.begin(), names.end());
  }
  return all;
}

}  // namespace millrace
