#include "millrace/runtime/torch/state_capture.h"

#include <ATen/core/Tensor.h>

#include <unordered_map>
#include <utility>

#include "millrace/runtime/torch/model.h"
#include "millrace/runtime/torch/optimizer.h"
#include "millrace/runtime/torch/state_dict.h"

namespace millrace {
namespace {

std::vector<std::string> parameter_names(const Model& model, const Optimizer& optimizer) {
  std::unordered_map<const void*, std::string> known;
  for (const Model::Entry& entry : model.entries()) {
    known.emplace(entry.tensor->unsafeGetTensorImpl(), entry.name);
  }
  std::vector<std::string> names;
  for (std::size_t i = 0; i < optimizer.parameters().size(); ++i) {
    const auto found = known.find(optimizer.parameters()[i].unsafeGetTensorImpl());
    names.push_back(found != known.end() ? found->second : "parameter " + std::to_string(i));
  }
  return names;
}

}  // namespace

struct StateCapture::Made {
  std::uint64_t revision = 0;   // of the model
  std::vector<bool> has_state;  // by parameter
  StorageTable storages;
  OptimizerTrees optimizer;
  pickle::Value state_dict;
};

StateCapture::StateCapture(const Model& model, const Optimizer& optimizer)
    : model_(model), optimizer_(optimizer) {}

StateCapture::~StateCapture() = default;

bool StateCapture::current(const Made& made) const {
  if (made.revision != model_.revision() || !made.storages.current()) return false;
  for (std::size_t i = 0; i < made.has_state.size(); ++i) {
    if (made.has_state[i] == optimizer_.state(i).empty()) return false;
  }
  return true;
}

std::unique_ptr<const StateCapture::Made> StateCapture::make(bool with_optimizer) const {
  auto made = std::make_unique<Made>();
  made->revision = model_.revision();
  if (with_optimizer) {
    made->optimizer =
        optimizer_trees(optimizer_, made->storages, parameter_names(model_, optimizer_));
    for (std::size_t i = 0; i < optimizer_.parameters().size(); ++i) {
      made->has_state.push_back(!optimizer_.state(i).empty());
    }
  }
  made->state_dict = model_tree(model_, made->storages);
  return made;
}

CapturedState StateCapture::capture(bool with_optimizer) {
  std::unique_ptr<const Made>& made = with_optimizer ? whole_ : weights_;
  if (!made || !current(*made)) {
    made = make(with_optimizer);
    ++rebuilds_;
  }
  CapturedState state;
  state.state_dict = made->state_dict;
  if (with_optimizer) state.optimizer = optimizer_tree(optimizer_, made->optimizer);
  state.storages = made->storages.storages();
  state.handles = made->storages.handles();
  state.watch = made->storages.watch();
  state.bytes_to_come = with_optimizer ? optimizer_.bytes_to_come() : 0;
  return state;
}

}  // namespace millrace
