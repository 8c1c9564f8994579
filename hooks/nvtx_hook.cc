#include "millrace/hooks/nvtx_hook.h"

#include <algorithm>
#include <cstdio>

#include "millrace/events/checkpoint_events.h"
#include "millrace/runtime/device/nvtx_ranges.h"

namespace millrace {

void NvtxHook::subscribe(Subscriptions& on) {
  on.every<BeforeTrain>([this](const auto&) { begin(Range::kTrain, "train"); });
  on.every<BeforeTrainEpoch>(
      [this](const auto& e) { begin(Range::kTrainEpoch, "train_epoch", e.at.epoch + 1); });
  on.every<BeforeTrainIter>(
      [this](const auto& e) { begin(Range::kTrainIter, "train_iter", e.at.iter + 1); });
  on.every<BeforeOptimizerStep>(
      [this](const auto&) { begin(Range::kOptimizerStep, "optimizer_step"); });
  on.every<AfterTrainIter>([this](const auto&) { end(Range::kTrainIter); });
  on.every<AfterTrainEpoch>([this](const auto&) { end(Range::kTrainEpoch); });
  on.every<AfterTrain>([this](const auto&) { end(Range::kTrain); });

  on.every<BeforeVal>([this](const auto&) { begin(Range::kVal, "val"); });
  on.every<BeforeValEpoch>([this](const auto&) { begin(Range::kValEpoch, "val_epoch"); });
  on.every<BeforeValIter>(
      [this](const auto& e) { begin(Range::kValIter, "val_iter", e.batch_idx + 1); });
  on.every<AfterValIter>([this](const auto&) { end(Range::kValIter); });
  on.every<AfterValEpoch>([this](const auto&) { end(Range::kValEpoch); });
  on.every<AfterVal>([this](const auto&) { end(Range::kVal); });

  on.every<BeforeTest>([this](const auto&) { begin(Range::kTest, "test"); });
  on.every<BeforeTestEpoch>([this](const auto&) { begin(Range::kTestEpoch, "test_epoch"); });
  on.every<BeforeTestIter>(
      [this](const auto& e) { begin(Range::kTestIter, "test_iter", e.batch_idx + 1); });
  on.every<AfterTestIter>([this](const auto&) { end(Range::kTestIter); });
  on.every<AfterTestEpoch>([this](const auto&) { end(Range::kTestEpoch); });
  on.every<AfterTest>([this](const auto&) { end(Range::kTest); });

  on.every<BeforeSaveCheckpoint>([this](const auto&) { begin(Range::kSave, "save"); });
  on.every<CheckpointCaptured>([this](const auto&) { end(Range::kSave); });
  on.every<AfterRun>([this](const auto&) {
    if (!open_.empty()) end(open_.front());
  });
}

void NvtxHook::begin(Range range, const char* name, std::int64_t number) {
  char text[48];
  if (number > 0) std::snprintf(text, sizeof text, "%s %lld", name, static_cast<long long>(number));
  push_nvtx_range(number > 0 ? text : name);
  open_.push_back(range);
}

void NvtxHook::end(Range range) {
  if (std::find(open_.begin(), open_.end(), range) == open_.end()) return;
  for (bool found = false; !found; open_.pop_back()) {
    found = open_.back() == range;
    pop_nvtx_range();
  }
}

}  // namespace millrace
