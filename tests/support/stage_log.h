// StageLog: a hook that writes down every event of a run in order, with the counters at that
// moment: "before_train_iter e1 i4 b0", "after_val_epoch e1 i4", "checkpoint_committed
// epoch_1.pth".
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "millrace/events/checkpoint_events.h"
#include "millrace/runtime/engine/hook.h"

namespace millrace::test {

class StageLog final : public Hook {
 public:
  // The lines outlive the hook, which the runner owns.
  explicit StageLog(std::vector<std::string>& lines) : lines_(lines) {}
  std::string_view name() const override { return "StageLog"; }
  void subscribe(Subscriptions& on) override {
    all<BeforeRun, AfterRun, BeforeTrain, AfterTrain, BeforeTrainEpoch, AfterTrainEpoch,
        BeforeTrainIter, BeforeOptimizerStep, AfterTrainIter, BeforeVal, AfterVal, BeforeValEpoch,
        AfterValEpoch, BeforeValIter, AfterValIter, BeforeSaveCheckpoint, StopRequested>(on);
    saves<CheckpointCaptured, CheckpointCommitted, CheckpointFailed, CheckpointRemoved>(on);
  }

 private:
  template <class... E>
  void all(Subscriptions& on) {
    (on.every<E>([this](const E& event) {
      std::string line(E::kName);
      line += " e" + std::to_string(event.at.epoch) + " i" + std::to_string(event.at.iter);
      if constexpr (requires { event.batch_idx; }) line += " b" + std::to_string(event.batch_idx);
      lines_.push_back(std::move(line));
    }),
     ...);
  }
  template <class... E>
  void saves(Subscriptions& on) {
    (on.every<E>([this](const E& event) {
      lines_.push_back(std::string(E::kName) + " " + event.row.name);
    }),
     ...);
  }

  std::vector<std::string>& lines_;
};

}  // namespace millrace::test
