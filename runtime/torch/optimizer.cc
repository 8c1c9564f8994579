#include "millrace/runtime/torch/optimizer.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <set>
#include <utility>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/staging/state_gate.h"
#include "millrace/runtime/torch/fused_step.h"
#include "millrace/runtime/torch/tensor_bytes.h"

namespace millrace {
namespace {

// Dense, with the parameter's strides where those are.
at::Tensor state_like(const at::Tensor& parameter) {
  const bool dense = parameter.is_non_overlapping_and_dense();
  const auto format = dense ? at::MemoryFormat::Preserve : at::MemoryFormat::Contiguous;
  return at::zeros_like(parameter, {}, format);
}

}  // namespace

struct Optimizer::Tensors {
  struct State {
    std::vector<at::Tensor> tensors;  // none while the parameter is frozen
    bool started = false;             // they hold a state
  };
  std::vector<at::Tensor> parameters;
  std::vector<State> states;  // by parameter
  // The counts of all parameters: one storage, small, and one entry in the file.
  at::Tensor counts;

  void make_state(std::size_t i, const StateLayout& layout) {
    State& state = states[i];
    state.started = layout.counted;
    if (layout.counted) state.tensors.push_back(counts.select(0, static_cast<std::int64_t>(i)));
    while (state.tensors.size() < layout.names.size()) {
      state.tensors.push_back(state_like(parameters[i]));
    }
  }
};

Optimizer::Optimizer(std::vector<at::Tensor> parameters, double learning_rate, StateLayout layout)
    : learning_rate_(learning_rate),
      layout_(std::move(layout)),
      tensors_(std::make_unique<Tensors>()) {
  std::set<const void*> seen;
  for (at::Tensor& parameter : parameters) {
    if (seen.insert(parameter.unsafeGetTensorImpl()).second) {
      tensors_->parameters.push_back(std::move(parameter));
    }
  }
  const std::size_t count = tensors_->parameters.size();
  if (count == 0) throw ConfigError("optimizer", "the model has no parameters");
  tensors_->states.resize(count);
  if (layout_.counted) {
    const auto options = tensors_->parameters.front().options().dtype(at::kFloat);
    tensors_->counts = at::zeros({static_cast<std::int64_t>(count)}, options.requires_grad(false));
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (tensors_->parameters[i].requires_grad()) tensors_->make_state(i, layout_);
  }
}

Optimizer::~Optimizer() = default;

const std::vector<at::Tensor>& Optimizer::parameters() const noexcept {
  return tensors_->parameters;
}

const std::vector<std::string>& Optimizer::state_names() const noexcept { return layout_.names; }

std::span<const at::Tensor> Optimizer::state(std::size_t i) const noexcept {
  const Tensors::State& state = tensors_->states[i];
  if (!state.started) return {};
  return state.tensors;
}

void Optimizer::load_state(std::size_t i, std::span<const at::Tensor> values, StateGate& gate) {
  const at::NoGradGuard no_grad;
  Tensors::State& state = tensors_->states[i];
  if (state.tensors.empty()) tensors_->make_state(i, layout_);
  for (std::size_t s = 0; s < state.tensors.size(); ++s) {
    gate.writable(storage_bytes(state.tensors[s]));
    state.tensors[s].copy_(values[s]);
  }
  state.started = true;
}

void Optimizer::clear_state(std::size_t i, StateGate& gate) {
  const at::NoGradGuard no_grad;
  Tensors::State& state = tensors_->states[i];
  state.started = layout_.counted && !state.tensors.empty();
  if (!state.started) return;
  for (const at::Tensor& tensor : state.tensors) {
    gate.writable(storage_bytes(tensor));
    tensor.zero_();
  }
}

std::uint64_t Optimizer::bytes_to_come() const noexcept {
  std::uint64_t bytes = 0;
  for (const Tensors::State& state : tensors_->states) {
    if (state.started) continue;
    for (const at::Tensor& tensor : state.tensors) bytes += storage_bytes(tensor).size();
  }
  return bytes;
}

// The parameters to step, each of which can be stepped, and has the tensors of its state.
std::vector<std::size_t> Optimizer::with_gradient() {
  std::vector<std::size_t> indices;
  for (std::size_t i = 0; i < parameters().size(); ++i) {
    const at::Tensor& parameter = parameters()[i];
    const at::Tensor& gradient = parameter.grad();
    if (!gradient.defined()) continue;
    const auto require = [i](bool good, const char* problem) {
      if (!good) throw Error("optimizer: parameter " + std::to_string(i) + " " + problem);
    };
    const auto like_parameter = [&](const at::Tensor& other) {
      return other.sizes() == parameter.sizes() && other.dtype() == parameter.dtype();
    };
    require(gradient.layout() == at::kStrided,
            "has a sparse gradient; these optimizers need dense");
    require(like_parameter(gradient), "has a gradient of another shape or type");
    for (const at::Tensor& state : tensors_->states[i].tensors) {
      const bool count = layout_.counted && state.is_same(tensors_->states[i].tensors.front());
      require(count || like_parameter(state), "changed its shape or type during training");
    }
    indices.push_back(i);
  }
  for (const std::size_t i : indices) {
    if (tensors_->states[i].tensors.empty()) tensors_->make_state(i, layout_);  // was frozen
  }
  return indices;
}

void Optimizer::step(StateGate& gate) {
  const at::NoGradGuard no_grad;
  const std::vector<std::size_t> indices = with_gradient();
  std::vector<FusedTarget> begin, go_on;
  for (const std::size_t i : indices) {
    const Tensors::State& state = tensors_->states[i];
    (state.started ? go_on : begin).push_back({&parameters()[i], state.tensors});
  }
  for (const auto* const targets : {&begin, &go_on}) {
    const bool first_step = targets == &begin;
    FusedStep step(gate, layout_.counted, [&](FusedLists& lists) { update(lists, first_step); });
    step.run(*targets);
  }
  for (const std::size_t i : indices) {
    tensors_->states[i].started = true;
    parameters()[i].mutable_grad().reset();
  }
}

}  // namespace millrace
