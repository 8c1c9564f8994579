// Optimizers on LibTorch's fused CPU kernels, with state in Python's layout. Train context.
//
// step() passes the state gate: with no save in staging all parameters go through one kernel call;
// with one, each parameter is stepped as soon as its own storages are copied. Both give the same
// bits.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "millrace/io/pickle_value.h"

namespace at {
class Tensor;
}

namespace millrace {

class StateGate;

class Optimizer {
 public:
  virtual ~Optimizer();

  // Steps every parameter that has a gradient, then drops the gradients.
  void step(StateGate& gate);

  // One per parameter group.
  std::span<double> learning_rates() noexcept { return {&learning_rate_, 1}; }
  // All parameters, in Python's index order: tied ones once, frozen ones included.
  const std::vector<at::Tensor>& parameters() const noexcept;

  // State tensors of parameter i by Python's names; empty when it has none. All that update()
  // writes for the parameter, or the gate does not stand before it. For files to load again, a
  // state has one element or the parameter's shape.
  using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;
  virtual NamedTensors state(std::size_t i) const = 0;
  // Takes over a state of the same names; shapes were checked.
  virtual void load_state(std::size_t i, const NamedTensors& state, StateGate& gate) = 0;
  // Names a loaded state of a parameter must have.
  virtual std::vector<std::string> state_names() const = 0;
  virtual void clear_state(std::size_t i, StateGate& gate) = 0;

  // A param_groups entry without "params": every hyper-parameter by Python's name.
  virtual pickle::Value group() const = 0;
  virtual void load_group(const pickle::Value& group) = 0;

 protected:
  Optimizer(std::vector<at::Tensor> parameters, double learning_rate);
  // One fused update of the parameters `indices`, all of which have gradients and are writable. The
  // same bits must come out whether parameters are passed together or one by one, so an update that
  // needs a norm over all of them has no place here.
  virtual void update(std::span<const std::size_t> indices) = 0;
  double learning_rate() const noexcept { return learning_rate_; }
  void set_learning_rate(double value) noexcept { learning_rate_ = value; }
  std::vector<at::Tensor> pick(const std::vector<at::Tensor>& all,
                               std::span<const std::size_t> indices) const;
  std::vector<at::Tensor> gradients(std::span<const std::size_t> indices) const;

 private:
  struct Tensors;
  std::unique_ptr<Tensors> tensors_;
  double learning_rate_;
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
