// Metrics of validation and test: fed batch by batch, computed once at the end.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "millrace/events/stage_events.h"
#include "millrace/runtime/engine/batch.h"

namespace millrace {

class Metric {
 public:
  virtual ~Metric() = default;
  virtual void reset() = 0;
  // `prediction` is what the strategy's scores() are for `batch`, on the host.
  virtual void process(const TensorView& prediction, const Batch& batch) = 0;
  // Names are complete ("accuracy"); two metrics may not give the same name.
  virtual std::vector<MetricValue> compute() = 0;
  // The names compute() gives, where they are known before it: what refers to a metric by name
  // (save_best) is then checked before training.
  virtual std::vector<std::string> names() const { return {}; }
};

// Share of samples, 0..1, whose largest score is at the target's index. Prediction: float32
// [N, classes]; target: int64 [N], field 1 of the batch. Other shapes are a ConfigError.
class Accuracy final : public Metric {
 public:
  explicit Accuracy(std::string name = "accuracy") : name_(std::move(name)) {}
  void reset() override { correct_ = seen_ = 0; }
  void process(const TensorView& prediction, const Batch& batch) override;
  std::vector<MetricValue> compute() override;
  std::vector<std::string> names() const override { return {name_}; }

 private:
  std::string name_;
  std::int64_t correct_ = 0;
  std::int64_t seen_ = 0;
};

// All metrics of a run, as one. The reference's Evaluator.
class Evaluator {
 public:
  explicit Evaluator(std::vector<std::unique_ptr<Metric>> metrics = {});
  void reset();
  void process(const TensorView& prediction, const Batch& batch);
  // Throws ConfigError when two metrics give the same name.
  std::vector<MetricValue> compute();
  // All names, or none when a metric does not know its own.
  std::vector<std::string> names() const;

 private:
  std::vector<std::unique_ptr<Metric>> metrics_;
};

}  // namespace millrace
