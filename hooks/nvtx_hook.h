// NvtxHook: every stage as a range of NVTX, so that a profiler shows which kernels and copies
// belong to which step:
//
//   train > train_epoch 1 > train_iter 12 > optimizer_step
//                         > save epoch_1.pth
//         > val > val_iter 3
//
// A range begins with its Before event, ahead of all other hooks, and ends with its After event, so
// the time of After hooks belongs to the range around it. Numbers count from 1, as in the log.
// Train thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "millrace/runtime/engine/hook.h"

namespace millrace {

class NvtxHook final : public Hook {
 public:
  std::string_view name() const override { return "NvtxHook"; }
  Priority priority() const override { return Priority::kHighest; }
  void subscribe(Subscriptions& on) override;

 private:
  enum class Range : std::uint8_t {
    kTrain,
    kTrainEpoch,
    kTrainIter,
    kOptimizerStep,
    kSave,
    kVal,
    kValEpoch,
    kValIter,
    kTest,
    kTestEpoch,
    kTestIter
  };
  // `number` 0: the name alone.
  void begin(Range range, const char* name, std::int64_t number = 0);
  // With what is still open inside it: a stage that a stop cut short has no After event.
  void end(Range range);

  std::vector<Range> open_;  // outermost first
};

}  // namespace millrace
