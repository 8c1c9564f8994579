// The loops: what happens between BeforeTrain and AfterTrain. Coroutines on the train context.
//
// Every iteration, of training and validation, yields once, after its last event; there and nowhere
// else completions and stop requests become events. A stop ends the loop after the iteration under
// way; in validation it ends that without metrics.
#pragma once

#include <cstdint>
#include <functional>

#include "millrace/events/stage_events.h"
#include "millrace/runtime/async/task.h"

namespace millrace {

class DataLoader;
class Evaluator;
class EventWaiter;
class EventBus;
class Inbox;
class Strategy;

// What every loop works with. The runner owns all of it.
struct LoopParts {
  Progress& at;
  EventBus& bus;
  Inbox& inbox;
  Strategy& strategy;
  const bool& stopped;  // set on the train context, by the stop notice
  EventWaiter* waiter;  // of the strategy's device; null on the host
};

struct ValPlan {              // when the train loop validates
  std::int64_t begin = 1;     // first epoch (or iteration) after which it may
  std::int64_t interval = 1;  // epochs or iterations
  bool due(std::int64_t done, std::int64_t last) const {
    return done >= begin && (done % interval == 0 || done == last);
  }
};

class ValLoop {
 public:
  ValLoop(LoopParts parts, DataLoader& loader, Evaluator& evaluator)
      : parts_(parts), loader_(loader), evaluator_(evaluator) {}
  Task<> run();

 private:
  LoopParts parts_;
  DataLoader& loader_;
  Evaluator& evaluator_;
};

class TrainLoop {
 public:
  // `val` may be null.
  TrainLoop(LoopParts parts, DataLoader& loader, ValLoop* val, ValPlan plan)
      : parts_(parts), loader_(loader), val_(val), plan_(plan) {}

  // From the current counters and loader position to max_epochs or max_iters, or to a stop.
  Task<> run();

 private:
  Task<> run_epochs();
  Task<> run_iters();
  Task<> run_steps();
  const Batch* next_batch();
  StepOutput forward_backward(const Batch& batch);
  void optimizer_step();

  LoopParts parts_;
  DataLoader& loader_;
  ValLoop* val_;
  ValPlan plan_;
};

}  // namespace millrace
