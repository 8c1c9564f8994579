// The stage events: the 22 points of a run, by the names of the reference, plus
// BeforeOptimizerStep.
//
// Counters keep the reference's meaning, the source of most off-by-one errors:
//  * Progress::epoch and ::iter are 0-based and count what is *finished*, so during an epoch they
//    are the index of the one being trained. iter grows after AfterTrainIter, epoch after
//    AfterTrainEpoch; in the validation that follows the first epoch, epoch is already 1.
//  * batch_idx is the index inside the epoch; in the iteration loop it equals iter.
//
// Every event is a view, valid during its dispatch. An event with an Owned type can be taken by
// background subscribers, which receive a copy.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

class Batch;              // runtime/engine/batch.h
class CheckpointContent;  // runtime/engine/checkpoint_content.h

struct Progress {
  std::int64_t epoch = 0;       // finished epochs
  std::int64_t iter = 0;        // finished train iterations, over all epochs
  std::int64_t max_epochs = 0;  // 1 in an iteration-based run
  std::int64_t max_iters = 0;
  std::int64_t epoch_length = 0;  // batches in one epoch
  bool by_epoch = true;           // which loop runs
};

enum class LoopMode : std::uint8_t { kTrain, kVal, kTest };

constexpr std::string_view loop_mode_name(LoopMode mode) {
  return mode == LoopMode::kTrain ? "train" : mode == LoopMode::kVal ? "val" : "test";
}

// A named number that a step produced. It may become readable later than the step ends (on a device
// it travels to the host first); on the CPU it is ready at once. Values of one source come in the
// order of their steps.
//
// A source lives as long as the strategy. A ticket may be read for kKept steps from its own on;
// then its place belongs to another value.
class ScalarSource {
 public:
  static constexpr std::uint32_t kKept = 64;

  // Nothing while the value is on its way. Train context; never waits.
  virtual std::optional<double> try_read(std::uint32_t ticket) const = 0;

 protected:
  ~ScalarSource() = default;
};

struct Scalar {
  std::string_view name;
  const ScalarSource* source = nullptr;
  std::uint32_t ticket = 0;

  std::optional<double> try_get() const { return source->try_read(ticket); }
};

// What forward and backward produced. Valid until the next step; a copy of a Scalar can be read
// longer.
struct StepOutput {
  std::span<const Scalar> scalars;
  bool step_due = true;  // false while gradients accumulate
};

struct MetricValue {
  std::string name;
  double value = 0;
};

// ---- run ----

struct BeforeRun {
  static constexpr std::string_view kName = "before_run";
  const Progress& at;
};
struct AfterRun {  // always published, also after an error or a stop request
  static constexpr std::string_view kName = "after_run";
  const Progress& at;
};
struct AfterLoadCheckpoint {
  static constexpr std::string_view kName = "after_load_checkpoint";
  std::string_view path;
  CheckpointContent& content;
};
struct BeforeSaveCheckpoint {
  static constexpr std::string_view kName = "before_save_checkpoint";
  const Progress& at;
  CheckpointContent& content;
};

// ---- training ----

struct BeforeTrain {
  static constexpr std::string_view kName = "before_train";
  const Progress& at;
};
struct AfterTrain {
  static constexpr std::string_view kName = "after_train";
  const Progress& at;
};
struct BeforeTrainEpoch {
  static constexpr std::string_view kName = "before_train_epoch";
  const Progress& at;
};
struct AfterTrainEpoch {
  static constexpr std::string_view kName = "after_train_epoch";
  const Progress& at;
};
struct BeforeTrainIter {
  static constexpr std::string_view kName = "before_train_iter";
  const Progress& at;
  std::int64_t batch_idx;
  const Batch& batch;
};
struct BeforeOptimizerStep {  // gradients are complete, parameters not yet changed
  static constexpr std::string_view kName = "before_optimizer_step";
  const Progress& at;
  const StepOutput& output;
};
struct AfterTrainIter {
  static constexpr std::string_view kName = "after_train_iter";
  struct Owned {
    Progress at;
    std::int64_t batch_idx;
  };
  const Progress& at;
  std::int64_t batch_idx;
  const Batch& batch;
  const StepOutput& output;

  Owned own() const { return {at, batch_idx}; }
};

// ---- validation and test; there is no test loop yet ----

struct BeforeVal {
  static constexpr std::string_view kName = "before_val";
  const Progress& at;
};
struct AfterVal {
  static constexpr std::string_view kName = "after_val";
  const Progress& at;
};
struct BeforeValEpoch {
  static constexpr std::string_view kName = "before_val_epoch";
  const Progress& at;
  std::int64_t batches;
};
struct AfterValEpoch {
  static constexpr std::string_view kName = "after_val_epoch";
  struct Owned {
    Progress at;
    std::vector<MetricValue> metrics;
  };
  const Progress& at;
  std::int64_t batches;
  std::span<const MetricValue> metrics;

  Owned own() const { return {at, {metrics.begin(), metrics.end()}}; }
};
struct BeforeValIter {
  static constexpr std::string_view kName = "before_val_iter";
  const Progress& at;
  std::int64_t batch_idx;
  const Batch& batch;
};
struct AfterValIter {
  static constexpr std::string_view kName = "after_val_iter";
  const Progress& at;
  std::int64_t batch_idx;
  std::int64_t batches;
  const Batch& batch;
};

struct BeforeTest {
  static constexpr std::string_view kName = "before_test";
  const Progress& at;
};
struct AfterTest {
  static constexpr std::string_view kName = "after_test";
  const Progress& at;
};
struct BeforeTestEpoch {
  static constexpr std::string_view kName = "before_test_epoch";
  const Progress& at;
  std::int64_t batches;
};
struct AfterTestEpoch {
  static constexpr std::string_view kName = "after_test_epoch";
  struct Owned {
    Progress at;
    std::vector<MetricValue> metrics;
  };
  const Progress& at;
  std::int64_t batches;
  std::span<const MetricValue> metrics;

  Owned own() const { return {at, {metrics.begin(), metrics.end()}}; }
};
struct BeforeTestIter {
  static constexpr std::string_view kName = "before_test_iter";
  const Progress& at;
  std::int64_t batch_idx;
  const Batch& batch;
};
struct AfterTestIter {
  static constexpr std::string_view kName = "after_test_iter";
  const Progress& at;
  std::int64_t batch_idx;
  std::int64_t batches;
  const Batch& batch;
};

}  // namespace millrace
