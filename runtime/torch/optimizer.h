// Optimizers on LibTorch's fused CPU kernels, with state in Python's layout. Train context.
//
// step() passes the state gate: with no save in staging all parameters go through one kernel call;
// with one, each is stepped as soon as it is copied, large ones slice by slice (fused_step.h). Both
// give the same bits.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "millrace/io/pickle_value.h"
#include "millrace/runtime/torch/param_group.h"

namespace at {
class Tensor;
}

namespace millrace {

class StateGate;
struct FusedLists;  // runtime/torch/fused_step.h

class Optimizer {
 public:
  virtual ~Optimizer();

  // Steps every parameter that has a gradient, then drops the gradients. The version counters of
  // all tensors it wrote have moved afterwards, as autograd expects of writers. Throws Error, with
  // nothing changed, for a gradient that is sparse or does not fit its parameter.
  void step(StateGate& gate);

  // One per parameter group.
  std::span<double> learning_rates() noexcept { return {&learning_rate_, 1}; }
  // All parameters, in Python's index order: tied ones once, frozen ones included.
  const std::vector<at::Tensor>& parameters() const noexcept;

  // What the state of a parameter consists of, by Python's names. "step" is one number, every other
  // state has the parameter's shape.
  const std::vector<std::string>& state_names() const noexcept;
  // The state tensors of parameter i, in the order of the names; empty when it has none (yet). They
  // stay the same tensors as long as the optimizer lives.
  std::span<const at::Tensor> state(std::size_t i) const noexcept;
  // Takes over the values of a state, in the order of the names; shapes were checked.
  void load_state(std::size_t i, std::span<const at::Tensor> values, StateGate& gate);
  // As if parameter i had never been stepped.
  void clear_state(std::size_t i, StateGate& gate);
  // Bytes of states that do not exist before the first step: what captures will grow by.
  std::uint64_t bytes_to_come() const noexcept;

  // A param_groups entry without "params": every hyper-parameter by Python's name.
  pickle::Value group() const { return group_.save(); }
  void load_group(const pickle::Value& group) { group_.load(group); }

 protected:
  struct StateLayout {
    std::vector<std::string> names;
    // The first name is the count of steps, and the state exists, as zeros, before the first one.
    bool counted = false;
  };
  // The class fills group_ in its constructor.
  Optimizer(std::vector<at::Tensor> parameters, double learning_rate, StateLayout layout);

  // One fused kernel call, without grad mode. The lists hold whole parameters or slices of them:
  // the kernel treats every element alone, or the bits would depend on the gate. `first_step`:
  // states that are not counted hold nothing yet.
  virtual void update(FusedLists& lists, bool first_step) = 0;

  double learning_rate_;
  ParamGroup group_;

 private:
  struct Tensors;
  std::vector<std::size_t> with_gradient();

  const StateLayout layout_;
  std::unique_ptr<Tensors> tensors_;
};

// Makes the optimizer for a model's parameters; what adamw() and sgd() return.
using OptimizerFactory = std::function<std::unique_ptr<Optimizer>(std::vector<at::Tensor>)>;

struct AdamWOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 1e-2;
  bool amsgrad = false;
  bool maximize = false;
};
// Throws ConfigError for values that Python's AdamW refuses.
OptimizerFactory adamw(AdamWOptions options = {});

struct SgdOptions {
  double lr = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
  bool maximize = false;
};
OptimizerFactory sgd(SgdOptions options = {});

}  // namespace millrace
