#include "millrace/runtime/torch/fused_step.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/_foreach_add.h>

#include <algorithm>
#include <map>
#include <utility>

#include "millrace/runtime/staging/state_gate.h"
#include "millrace/runtime/torch/tensor_bytes.h"

namespace millrace {
namespace {

// Whether element k in memory is the same element of both. Strides of dimensions of size 1 mean
// nothing, and autograd leaves any value there.
bool same_layout(const at::Tensor& a, const at::Tensor& b) {
  if (!a.is_non_overlapping_and_dense() || !b.is_non_overlapping_and_dense()) return false;
  for (std::int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) > 1 && a.stride(d) != b.stride(d)) return false;
  }
  return true;
}

bool covers_its_storage(const at::Tensor& tensor) {
  return storage_bytes(tensor).size() == static_cast<std::size_t>(tensor.nbytes());
}

// Kernels walk memory and know no strides.
bool kernel_fits(const at::Tensor& parameter, std::span<const at::Tensor> states) {
  const auto same = [&](const at::Tensor& other) { return same_layout(parameter, other); };
  return same(parameter.grad()) && std::all_of(states.begin(), states.end(), same);
}

at::Tensor flat(const at::Tensor& tensor) { return tensor.as_strided({tensor.numel()}, {1}); }

void reserve(FusedLists& lists, std::size_t states, std::size_t count) {
  lists.parameters.reserve(count);
  lists.gradients.reserve(count);
  lists.states.resize(states);
  for (auto& list : lists.states) list.reserve(count);
}

void append(FusedLists& lists, const FusedTarget& target) {
  lists.parameters.push_back(*target.parameter);
  lists.gradients.push_back(target.parameter->grad());
  for (std::size_t s = 0; s < target.states.size(); ++s) {
    lists.states[s].push_back(target.states[s]);
  }
}

}  // namespace

FusedStep::FusedStep(StateGate& gate, bool counted, Kernel kernel)
    : gate_(gate), counted_(counted), kernel_(std::move(kernel)) {}

void FusedStep::run(std::span<const FusedTarget> targets) {
  if (!targets.empty() && !targets.front().parameter->is_cpu()) return run_on_device(targets);
  std::size_t first = 0;  // of the parameters that wait to be stepped together
  for (std::size_t i = 0; i < targets.size() && !gate_.open(); ++i) {
    if (copied(targets[i])) continue;
    step_together(targets.subspan(first, i - first));
    first = i;
    if (copied(targets[i])) continue;  // meanwhile
    step_behind_gate(targets[i]);
    first = i + 1;
  }
  step_together(targets.subspan(first));
}

void FusedStep::run_on_device(std::span<const FusedTarget> targets) {
  std::size_t first = 0;
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < targets.size() && !gate_.open(); ++i) {
    gate_.writable(storage_bytes(*targets[i].parameter));
    bytes += static_cast<std::int64_t>(targets[i].parameter->nbytes());
    for (const at::Tensor& state : targets[i].states) {
      gate_.writable(storage_bytes(state));
      bytes += static_cast<std::int64_t>(state.nbytes());
    }
    if (bytes < kRun) continue;
    step_together(targets.subspan(first, i + 1 - first));
    first = i + 1;
    bytes = 0;
  }
  step_together(targets.subspan(first));
}

bool FusedStep::copied(const FusedTarget& target) const {
  return gate_.clear(storage_bytes(*target.parameter)) &&
         std::all_of(target.states.begin(), target.states.end(),
                     [this](const at::Tensor& state) { return gate_.clear(storage_bytes(state)); });
}

void FusedStep::step_together(std::span<const FusedTarget> targets) {
  if (targets.empty()) return;
  FusedLists lists;
  reserve(lists, targets.front().states.size(), targets.size());
  count(targets);
  for (const FusedTarget& target : targets) {
    if (kernel_fits(*target.parameter, sized(target))) {
      append(lists, target);
    } else {
      step_through_copies(target);
    }
  }
  run_kernel(lists);
  for (const FusedTarget& target : targets) announce(target);
}

// CUDA's kernels take tensors of one type at a time.
void FusedStep::run_kernel(FusedLists& lists) const {
  const auto& all = lists.parameters;
  const auto differs = [&](const at::Tensor& other) {
    return other.dtype() != all.front().dtype();
  };
  if (all.empty()) return;
  if (all.front().is_cpu() || std::none_of(all.begin(), all.end(), differs)) {
    return kernel_(lists);
  }
  std::map<at::ScalarType, FusedLists> by_type;
  for (std::size_t i = 0; i < all.size(); ++i) {
    FusedLists& same = by_type[all[i].scalar_type()];
    same.parameters.push_back(all[i]);
    same.gradients.push_back(lists.gradients[i]);
    same.states.resize(lists.states.size());
    for (std::size_t s = 0; s < lists.states.size(); ++s) {
      same.states[s].push_back(lists.states[s][i]);
    }
  }
  for (auto& [type, same] : by_type) kernel_(same);
}

void FusedStep::step_behind_gate(const FusedTarget& target) {
  const auto states = sized(target);
  // A neighbour in a shared storage may not be copied yet when this parameter's version moves.
  const bool by_slices = kernel_fits(*target.parameter, states) &&
                         covers_its_storage(*target.parameter) &&
                         std::all_of(states.begin(), states.end(), covers_its_storage);
  if (by_slices) return step_in_slices(target);
  gate_.writable(storage_bytes(*target.parameter));
  for (const at::Tensor& state : target.states) gate_.writable(storage_bytes(state));
  step_together({&target, 1});
}

void FusedStep::step_in_slices(const FusedTarget& target) {
  if (counted_) gate_.writable(storage_bytes(target.states.front()));
  count({&target, 1});
  const at::Tensor parameter = flat(*target.parameter);
  const at::Tensor gradient = flat(target.parameter->grad());
  std::vector<at::Tensor> states;
  for (const at::Tensor& state : sized(target)) states.push_back(flat(state));

  const std::int64_t size = parameter.numel();
  for (std::int64_t first = 0, length = 0; first < size; first += length) {
    length = gate_.open() ? size - first : std::min(kSlice, size - first);
    const auto slice = [&](const at::Tensor& whole) {
      at::Tensor part = whole.narrow(0, first, length);
      const auto* const bytes = static_cast<const std::byte*>(part.const_data_ptr());
      gate_.writable({bytes, static_cast<std::size_t>(part.nbytes())});
      return part;
    };
    FusedLists lists;
    lists.parameters.push_back(slice(parameter));
    lists.gradients.push_back(gradient.narrow(0, first, length));
    if (counted_) lists.states.push_back({target.states.front()});
    for (const at::Tensor& state : states) lists.states.push_back({slice(state)});
    kernel_(lists);
  }
  announce(target);
}

// A parameter that is a strided view, or a gradient laid out otherwise.
void FusedStep::step_through_copies(const FusedTarget& target) {
  const auto contiguous = [](const at::Tensor& tensor) {
    return tensor.clone(at::MemoryFormat::Contiguous);
  };
  FusedLists lists;
  lists.parameters.push_back(contiguous(*target.parameter));
  lists.gradients.push_back(contiguous(target.parameter->grad()));
  if (counted_) lists.states.push_back({target.states.front()});
  const auto states = sized(target);
  for (const at::Tensor& state : states) lists.states.push_back({contiguous(state)});
  kernel_(lists);
  target.parameter->copy_(lists.parameters.front());
  const std::size_t first = counted_ ? 1 : 0;
  for (std::size_t s = 0; s < states.size(); ++s) states[s].copy_(lists.states[first + s].front());
}

void FusedStep::count(std::span<const FusedTarget> targets) const {
  if (!counted_) return;
  if (targets.front().parameter->is_cpu()) {
    for (const FusedTarget& target : targets) {
      *target.states.front().mutable_data_ptr<float>() += 1;
    }
    return;
  }
  std::vector<at::Tensor> counts;
  counts.reserve(targets.size());
  for (const FusedTarget& target : targets) counts.push_back(target.states.front());
  at::_foreach_add_(counts, 1);
}

void FusedStep::announce(const FusedTarget& target) const {
  target.parameter->unsafeGetTensorImpl()->bump_version();
  for (const at::Tensor& state : target.states) state.unsafeGetTensorImpl()->bump_version();
}

std::span<const at::Tensor> FusedStep::sized(const FusedTarget& target) const {
  return target.states.subspan(counted_ ? 1 : 0);
}

}  // namespace millrace
