// One optimizer step through a fused kernel and the state gate.
//
// With the gate open all parameters go through one kernel call. While a save is being staged, those
// that are copied already are stepped in as few calls as possible, and the copiers get on
// meanwhile; every other one is copied and stepped slice by slice, each slice while it is hot in
// the cache. Which calls are made changes no bit: a fused kernel treats every element alone, and
// the count of steps goes up once per parameter.
//
// On a device the gate only makes the stream wait, so slices would be but more kernels: there, runs
// of whole parameters are stepped, each when its memory has been copied.
//
// Fused kernels do not say that they wrote: a parameter's version counters, and its state's, are
// bumped here, once per tensor, when its last slice is stepped. All of a storage has been copied by
// then, so that whoever watches a captured storage sees only writers that did not pass the gate.
//
// Internal to the optimizers. Train context, without grad mode.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace at {
class Tensor;
}

namespace millrace {

class StateGate;

// What a kernel call steps: parallel lists with one entry per tensor or slice of one.
struct FusedLists {
  std::vector<at::Tensor> parameters, gradients;
  std::vector<std::vector<at::Tensor>> states;  // by the place of the state's name
};

// A parameter whose gradient is there, of its shape and type, and its state tensors.
struct FusedTarget {
  const at::Tensor* parameter;
  std::span<const at::Tensor> states;
};

class FusedStep {
 public:
  using Kernel = std::function<void(FusedLists&)>;
  // `counted`: a target's first state is its count of steps, one float, which goes up by one before
  // the kernel; it is passed whole with every slice.
  FusedStep(StateGate& gate, bool counted, Kernel kernel);

  void run(std::span<const FusedTarget> targets);

  // Elements that are copied and stepped at a time.
  static constexpr std::int64_t kSlice = 64 << 10;
  // Bytes that a device steps in one call at least while a save is being staged.
  static constexpr std::int64_t kRun = 32 << 20;

 private:
  void run_on_device(std::span<const FusedTarget> targets);
  bool copied(const FusedTarget& target) const;
  void step_together(std::span<const FusedTarget> targets);
  void run_kernel(FusedLists& lists) const;
  void step_behind_gate(const FusedTarget& target);
  void step_in_slices(const FusedTarget& target);
  void step_through_copies(const FusedTarget& target);
  void count(std::span<const FusedTarget> targets) const;
  void announce(const FusedTarget& target) const;
  std::span<const at::Tensor> sized(const FusedTarget& target) const;

  StateGate& gate_;
  const bool counted_;
  const Kernel kernel_;
};

}  // namespace millrace
