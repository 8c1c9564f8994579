// Strategy: the boundary between the engine, which knows no LibTorch, and the code that owns
// tensors.
//
// Plain functions on the train context, but for drain(); no LibTorch guard outlives a call. The
// loop calls forward_backward(batch), publishes BeforeOptimizerStep, then calls optimizer_step(),
// which alone passes the state gate in steady state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/events/stage_events.h"
#include "millrace/io/pickle_value.h"
#include "millrace/runtime/async/task.h"
#include "millrace/runtime/device/stream_timeline.h"
#include "millrace/runtime/engine/batch.h"
#include "millrace/runtime/staging/captured_storage.h"

namespace millrace {

class BatchMemory;     // runtime/device/batch_memory.h
class DeviceEvent;     // runtime/device/device_event.h
class DeviceStream;    // runtime/device/device_stream.h
class EventWaiter;     // runtime/device/event_waiter.h
class StateGate;       // runtime/staging/state_gate.h
class CheckpointFile;  // runtime/engine/checkpoint_file.h

// A consistent view of the training state between two steps. Tensor leaves name a storage by its
// index here ("0", "1", ...). Tied and overlapping tensors share one storage. The trees may be
// shared with other captures and other threads: who wants to change one copies it first.
struct CapturedState {
  pickle::Value state_dict;               // OrderedDict with _metadata
  pickle::Value optimizer;                // Python's layout; None when not captured
  std::vector<CapturedStorage> storages;  // in the order the optimizer steps through them
  std::shared_ptr<const void> handles;    // keeps the memory alive; released on the train context
  std::shared_ptr<const CaptureWatch> watch;  // null: nobody but the gate's users writes
  // What later captures may hold beyond this one: states that the first step makes.
  std::uint64_t bytes_to_come = 0;
};

struct LoadOptions {
  bool strict = true;  // missing or unexpected keys are an error, not a warning
};

// What a non-strict load left undone, one sentence each.
struct LoadReport {
  std::vector<std::string> warnings;
};

class Strategy {
 public:
  virtual ~Strategy() = default;

  // Once, on the train context, before anything else. `gate` outlives the strategy's use.
  virtual void prepare(std::uint64_t seed, StateGate& gate) = 0;

  // Where batches for this strategy are best put; null: anywhere. The same as long as it lives.
  virtual BatchMemory* batch_memory() { return nullptr; }

  // Accumulates gradients of one batch. The output is valid until the next call.
  virtual StepOutput forward_backward(const Batch& batch) = 0;
  // Changes the state, storage by storage, each behind the gate; then drops the gradients.
  virtual void optimizer_step() = 0;
  // Scores of a batch in evaluation mode: predict() has them computed, scores() has them on the
  // host, until the next predict().
  virtual void predict(const Batch& batch) = 0;
  virtual TensorView scores() = 0;

  // What the device has to reach before the next forward_backward(), predict() or scores(), so that
  // the call does not wait for it: the loop awaits it. Null: nothing, as always on the host. It
  // stays until the next call.
  virtual const DeviceEvent* pending() { return nullptr; }
  // What the device has to reach before every scalar given so far can be read; null: nothing. A
  // save awaits it, because the scalars' history is saved.
  virtual const DeviceEvent* unread() { return nullptr; }
  // After the last step, also after an error: until no copy of the strategy's is under way.
  virtual Task<> drain(EventWaiter& waiter);

  // One value per parameter group; writing one sets that group's learning rate.
  virtual std::span<double> learning_rates() = 0;

  virtual CapturedState capture(bool with_optimizer) = 0;
  // Random generators, as bytes only this strategy reads.
  virtual std::string save_rng() const = 0;
  virtual void load_rng(std::string_view bytes) = 0;

  // Everything is checked before anything is written: a CheckpointError leaves the state untouched.
  virtual LoadReport load_model(const CheckpointFile& file, const LoadOptions& options) = 0;
  virtual void load_optimizer(const CheckpointFile& file) = 0;

  // The stream on which steps run, where they run on a device; null on the host. Checkpoints are
  // ordered against it. From prepare() on it stays the same one; the strategy owns it or knows who
  // does, and it lives as long as the strategy.
  virtual DeviceStream* train_stream() { return nullptr; }
  // True when the step's own threads take every core, so that a copy beside it would only compete.
  virtual bool uses_every_core() const = 0;
  // When the train stream worked, batch by batch: the newest that have ended, by rising numbers.
  // Recorded from the first call on, which comes before training; valid until the next one. Who
  // wants every span asks after every step. Always empty on the host.
  virtual std::span<const StreamSpan> stream_spans() { return {}; }
  // Peak device memory in MiB since the last call, or 0 where there is no device.
  virtual double peak_memory_mib() { return 0; }
};

}  // namespace millrace
