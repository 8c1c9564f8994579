#include "millrace/runtime/engine/loop.h"

#include <string>

#include "millrace/events/event_bus.h"
#include "millrace/runtime/async/inbox.h"
#include "millrace/runtime/device/device_error.h"
#include "millrace/runtime/device/event_waiter.h"
#include "millrace/runtime/engine/data_loader.h"
#include "millrace/runtime/engine/metric.h"
#include "millrace/runtime/engine/strategy.h"

namespace millrace {
namespace {

// A device's error says which call of it failed; this adds which of ours.
template <class Call>
auto in_stage(const char* stage, std::int64_t iter, Call call) {
  try {
    return call();
  } catch (const DeviceError& error) {
    throw DeviceError(std::string(stage) + " iteration " + std::to_string(iter + 1), error);
  }
}

// Where the strategy wants it; that may need memory of the device.
const Batch* load(const LoopParts& parts, DataLoader& loader) {
  return in_stage("loading a batch after", parts.at.iter - 1,
                  [&] { return loader.next(parts.strategy.batch_memory()); });
}

// The host waits for its device here, and only here.
Task<> catch_up(LoopParts parts) {
  const auto pending = [&parts] {
    return in_stage("waiting for the device after", parts.at.iter - 1,
                    [&parts] { return parts.strategy.pending(); });
  };
  while (const DeviceEvent* const event = pending()) {
    try {
      co_await parts.waiter->wait(*event);
    } catch (const DeviceError&) {
      in_stage("waiting for the device after", parts.at.iter - 1, [] { throw; });
    }
  }
}

}  // namespace

Task<> TrainLoop::run() {
  const Progress& at = parts_.at;
  co_await parts_.bus.publish(BeforeTrain{at});
  co_await parts_.inbox.deliver();  // a stop that arrived during start-up
  if (!parts_.stopped) {
    if (at.by_epoch) {
      co_await run_epochs();
    } else {
      co_await run_iters();
    }
  }
  co_await parts_.bus.publish(AfterTrain{at});
}

Task<> TrainLoop::run_epochs() {
  Progress& at = parts_.at;
  while (at.epoch < at.max_epochs && !parts_.stopped) {
    co_await parts_.bus.publish(BeforeTrainEpoch{at});
    co_await run_steps();
    if (parts_.stopped) break;
    co_await parts_.bus.publish(AfterTrainEpoch{at});
    ++at.epoch;
    // A resumed run continues inside its first epoch; all later ones start at their beginning. At
    // once, so that a save during validation says so.
    loader_.rewind();
    if (val_ != nullptr && plan_.due(at.epoch, at.max_epochs)) co_await val_->run();
  }
}

Task<> TrainLoop::run_iters() {
  const Progress& at = parts_.at;
  co_await parts_.bus.publish(BeforeTrainEpoch{at});
  co_await run_steps();
  if (!parts_.stopped) co_await parts_.bus.publish(AfterTrainEpoch{at});
}

// To the end of the epoch, or of an iteration-based run, or to a stop. Everything an iteration does
// is in this one frame, so that the frames it makes (deliver, yield) are recycled by Asio.
Task<> TrainLoop::run_steps() {
  Progress& at = parts_.at;
  EventBus& bus = parts_.bus;
  while (const Batch* batch = next_batch()) {
    const std::int64_t batch_idx = at.by_epoch ? loader_.position().batch - 1 : at.iter;
    co_await bus.publish(BeforeTrainIter{at, batch_idx, *batch});
    if (parts_.waiter != nullptr) co_await catch_up(parts_);
    const StepOutput output = forward_backward(*batch);
    if (output.step_due) {
      co_await bus.publish(BeforeOptimizerStep{at, output});
      optimizer_step();
    }
    co_await bus.publish(AfterTrainIter{at, batch_idx, *batch, output});
    ++at.iter;
    co_await parts_.inbox.deliver();
    if (parts_.stopped) co_return;
    if (at.by_epoch || val_ == nullptr || !plan_.due(at.iter, at.max_iters)) continue;
    co_await val_->run();
    if (parts_.stopped) co_return;
  }
}

StepOutput TrainLoop::forward_backward(const Batch& batch) {
  return in_stage("forward_backward of", parts_.at.iter,
                  [&] { return parts_.strategy.forward_backward(batch); });
}

void TrainLoop::optimizer_step() {
  in_stage("optimizer_step of", parts_.at.iter, [&] { parts_.strategy.optimizer_step(); });
}

const Batch* TrainLoop::next_batch() {
  const bool by_epoch = parts_.at.by_epoch;
  if (!by_epoch && parts_.at.iter >= parts_.at.max_iters) return nullptr;
  const Batch* batch = load(parts_, loader_);
  if (batch != nullptr || by_epoch) return batch;
  // An iteration-based run reads its data again and again, each time in another order.
  loader_.sampler().set_epoch(loader_.sampler().epoch() + 1);
  loader_.rewind();
  return load(parts_, loader_);
}

Task<> ValLoop::run() {
  const Progress& at = parts_.at;
  EventBus& bus = parts_.bus;
  const std::int64_t batches = loader_.batches();
  co_await bus.publish(BeforeVal{at});
  co_await bus.publish(BeforeValEpoch{at, batches});
  evaluator_.reset();
  loader_.rewind();
  while (const Batch* batch = load(parts_, loader_)) {
    const std::int64_t batch_idx = loader_.position().batch - 1;
    co_await bus.publish(BeforeValIter{at, batch_idx, *batch});
    if (parts_.waiter != nullptr) co_await catch_up(parts_);
    in_stage("predict after", at.iter - 1, [&] { parts_.strategy.predict(*batch); });
    if (parts_.waiter != nullptr) co_await catch_up(parts_);
    in_stage("predict after", at.iter - 1,
             [&] { evaluator_.process(parts_.strategy.scores(), *batch); });
    co_await bus.publish(AfterValIter{at, batch_idx, batches, *batch});
    co_await parts_.inbox.deliver();
    if (parts_.stopped) break;
  }
  if (!parts_.stopped) {
    const std::vector<MetricValue> metrics = evaluator_.compute();
    const std::span<const MetricValue> view(metrics);
    co_await bus.publish(AfterValEpoch{at, batches, view});
  }
  co_await bus.publish(AfterVal{at});
  co_await parts_.inbox.deliver();  // a stop that the metrics gave reason for
}

}  // namespace millrace
