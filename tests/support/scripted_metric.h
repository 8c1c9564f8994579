// A metric that gives the next value of a list at each validation, again and again.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "millrace/runtime/engine/metric.h"

namespace millrace::test {

class ScriptedMetric final : public Metric {
 public:
  ScriptedMetric(std::string name, std::vector<double> values)
      : name_(std::move(name)), values_(std::move(values)) {}
  void reset() override {}
  void process(const TensorView&, const Batch&) override {}
  std::vector<MetricValue> compute() override {
    return {{name_, values_[next_++ % values_.size()]}};
  }
  std::vector<std::string> names() const override { return {name_}; }

 private:
  std::string name_;
  std::vector<double> values_;
  std::size_t next_ = 0;
};

}  // namespace millrace::test
