#include "millrace/runtime/engine/loop.h"

#include "millrace/events/event_bus.h"
#include "millrace/runtime/async/inbox.h"
#include "millrace/runtime/engine/data_loader.h"
#include "millrace/runtime/engine/metric.h"
#include "millrace/runtime/engine/strategy.h"

namespace millrace {

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
    co_await train_epoch();
    if (parts_.stopped) break;
    co_await validate(at.epoch, at.max_epochs);
    // A resumed run continues inside its first epoch; all later ones start at their beginning.
    loader_.rewind();
  }
}

Task<> TrainLoop::train_epoch() {
  Progress& at = parts_.at;
  co_await parts_.bus.publish(BeforeTrainEpoch{at});
  while (const Batch* batch = loader_.next()) {
    co_await step(batch, loader_.position().batch - 1);
    if (parts_.stopped) co_return;
  }
  co_await parts_.bus.publish(AfterTrainEpoch{at});
  ++at.epoch;
}

Task<> TrainLoop::run_iters() {
  Progress& at = parts_.at;
  co_await parts_.bus.publish(BeforeTrainEpoch{at});
  while (at.iter < at.max_iters && !parts_.stopped) {
    co_await step(next_endless(), at.iter);
    if (!parts_.stopped) co_await validate(at.iter, at.max_iters);
  }
  if (parts_.stopped) co_return;
  co_await parts_.bus.publish(AfterTrainEpoch{at});
}

const Batch* TrainLoop::next_endless() {
  if (const Batch* batch = loader_.next()) return batch;
  loader_.sampler().set_epoch(loader_.sampler().epoch() + 1);
  loader_.rewind();
  return loader_.next();
}

// The frame of this coroutine, deliver()'s and the yield's are all an iteration needs; they are
// recycled by Asio.
Task<> TrainLoop::step(const Batch* batch, std::int64_t batch_idx) {
  Progress& at = parts_.at;
  EventBus& bus = parts_.bus;
  co_await bus.publish(BeforeTrainIter{at, batch_idx, *batch});
  const StepOutput output = parts_.strategy.forward_backward(*batch);
  if (output.step_due) {
    co_await bus.publish(BeforeOptimizerStep{at, output});
    parts_.strategy.optimizer_step();
  }
  co_await bus.publish(AfterTrainIter{at, batch_idx, *batch, output});
  ++at.iter;
  co_await parts_.inbox.deliver();
}

Task<> TrainLoop::validate(std::int64_t done, std::int64_t last) {
  if (val_ != nullptr && plan_.due(done, last)) co_await val_->run();
}

Task<> ValLoop::run() {
  const Progress& at = parts_.at;
  EventBus& bus = parts_.bus;
  const std::int64_t batches = loader_.batches();
  co_await bus.publish(BeforeVal{at});
  co_await bus.publish(BeforeValEpoch{at, batches});
  evaluator_.reset();
  loader_.rewind();
  while (const Batch* batch = loader_.next()) {
    const std::int64_t batch_idx = loader_.position().batch - 1;
    co_await bus.publish(BeforeValIter{at, batch_idx, *batch});
    evaluator_.process(parts_.strategy.predict(*batch), *batch);
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
}

}  // namespace millrace
