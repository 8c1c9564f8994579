// Strategy: the boundary between the engine, which knows no LibTorch, and the code that owns
// tensors.
//
// Plain functions on the train context, never a coroutine; no LibTorch guard outlives a call. The
// loop calls forward_backward(batch), publishes BeforeOptimizerStep, then calls optimizer_step(),
// which alone passes the state gate in steady state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/events/stage_events.h"
#include "millrace/io/pickle_value.h"
#include "millrace/runtime/engine/batch.h"

namespace millrace {

class StateGate;       // runtime/engine/state_gate.h
class CheckpointFile;  // runtime/engine/checkpoint_file.h

// When the bytes of a captured storage may change.
enum class Mutation : std::uint8_t {
  kBehindGate,  // only by writers that pass the gate: parameters, optimizer state
  kAnyTime,     // also by forward (BatchNorm statistics): copied at capture, on the train thread
};

struct CapturedStorage {
  std::span<const std::byte> bytes;  // live memory, not a copy
  Mutation mutation = Mutation::kBehindGate;
};

// A consistent view of the training state between two steps. Trees are values; tensor leaves name a
// storage by its index here ("0", "1", ...). Tied and overlapping tensors share one storage.
struct CapturedState {
  pickle::Value state_dict;               // OrderedDict with _metadata
  pickle::Value optimizer;                // Python's layout; None when not captured
  std::vector<CapturedStorage> storages;  // in the order the optimizer steps through them
  std::shared_ptr<const void> handles;    // keeps the memory alive; released on the train context
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

  // Accumulates gradients of one batch. The output is valid until the next call.
  virtual StepOutput forward_backward(const Batch& batch) = 0;
  // Changes the state, storage by storage, each behind the gate; then drops the gradients.
  virtual void optimizer_step() = 0;
  // Scores of a batch in evaluation mode, on the host; valid until the next call.
  virtual TensorView predict(const Batch& batch) = 0;

  // One value per parameter group; writing one sets that group's learning rate.
  virtual std::span<double> learning_rates() = 0;

  virtual CapturedState capture(bool with_optimizer) = 0;
  // Random generators, as bytes only this strategy reads.
  virtual std::string save_rng() const = 0;
  virtual void load_rng(std::string_view bytes) = 0;

  // Everything is checked before anything is written: a CheckpointError leaves the state untouched.
  virtual LoadReport load_model(const CheckpointFile& file, const LoadOptions& options) = 0;
  virtual void load_optimizer(const CheckpointFile& file) = 0;

  // True when the step's own threads take every core, so that a copy beside it would only compete.
  virtual bool uses_every_core() const = 0;
  // Peak device memory in MiB since the last call, or 0 where there is no device.
  virtual double peak_memory_mib() { return 0; }
};

}  // namespace millrace
