#include "millrace/runtime/torch/state_dict.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/torch/tensor_bytes.h"

namespace millrace {
namespace {

template <class Sizes>
std::string shape_text(const Sizes& sizes) {
  std::string text = "[";
  for (const std::int64_t size : sizes) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

std::string name_list(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 5;
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kShown); ++i) {
    text += (i > 0 ? ", " : "") + names[i];
  }
  if (names.size() > kShown) text += " and " + std::to_string(names.size() - kShown) + " more";
  return text;
}

template <class Node>
pickle::Value value_of(std::shared_ptr<Node> node) {
  return pickle::Value(pickle::Value::Data(std::move(node)));
}

bool same_shape(const at::Tensor& tensor, const pickle::TensorRef& leaf) {
  return std::equal(leaf.sizes.begin(), leaf.sizes.end(), tensor.sizes().begin(),
                    tensor.sizes().end());
}

}  // namespace

OptimizerTrees optimizer_trees(const Optimizer& optimizer, StorageTable& storages,
                               const std::vector<std::string>& names) {
  auto states = std::make_shared<pickle::Dict>();
  auto indices = std::make_shared<pickle::List>();
  for (std::size_t i = 0; i < optimizer.parameters().size(); ++i) {
    const std::string name = names.empty() ? "parameter " + std::to_string(i) : names[i];
    const auto index = static_cast<std::int64_t>(i);
    const std::size_t first = storages.storages().size();
    storages.add(optimizer.parameters()[i], Mutation::kBehindGate, name);
    const auto tensors = optimizer.state(i);
    if (!tensors.empty()) {
      pickle::Value state = pickle::Value::dict();
      for (std::size_t s = 0; s < tensors.size(); ++s) {
        const std::string& kind = optimizer.state_names()[s];
        state.set(kind, storages.add(tensors[s], Mutation::kBehindGate, kind + " of " + name));
      }
      states->items.emplace_back(index, std::move(state));
    }
    storages.group_from(first);
    indices->items.emplace_back(index);
  }
  return {value_of(std::move(states)), value_of(std::move(indices))};
}

pickle::Value optimizer_tree(const Optimizer& optimizer, const OptimizerTrees& trees) {
  pickle::Value group = optimizer.group();
  group.set("params", trees.indices);
  pickle::Value groups = pickle::Value::list();
  groups.append(std::move(group));
  pickle::Value tree = pickle::Value::dict();
  tree.set("state", trees.states);
  tree.set("param_groups", std::move(groups));
  return tree;
}

pickle::Value optimizer_tree(const Optimizer& optimizer, StorageTable& storages) {
  return optimizer_tree(optimizer, optimizer_trees(optimizer, storages));
}

pickle::Value model_tree(const Model& model, StorageTable& storages) {
  pickle::Value tree = pickle::Value::ordered_dict();
  // Names are unique, and Value::set would look for each among those before it.
  auto& pairs = std::get<std::shared_ptr<pickle::Call>>(tree.data)->pairs;
  for (const Model::Entry& entry : model.entries()) {
    // Forward changes buffers (BatchNorm), so they cannot wait for the gate.
    const Mutation mutation = entry.buffer ? Mutation::kAnyTime : Mutation::kBehindGate;
    pairs.emplace_back(entry.name, storages.add(*entry.tensor, mutation, entry.name));
  }
  pickle::Value metadata = pickle::Value::ordered_dict();
  auto& modules = std::get<std::shared_ptr<pickle::Call>>(metadata.data)->pairs;
  for (const Model::Version& module : model.versions()) {
    pickle::Value version = pickle::Value::dict();
    version.set("version", module.version);
    modules.emplace_back(module.module, std::move(version));
  }
  pickle::set_attribute(tree, "_metadata", std::move(metadata));
  return tree;
}

std::string ModelMatch::text() const {
  std::string text = "the model and the loaded state dict do not match exactly";
  if (!mismatched.empty()) text += "; size mismatch: " + name_list(mismatched);
  if (!unexpected.empty()) text += "; unexpected keys: " + name_list(unexpected);
  if (!missing.empty()) text += "; missing keys: " + name_list(missing);
  return text;
}

ModelMatch match_model(const Model& model, const pickle::Value& state_dict) {
  ModelMatch match;
  std::map<std::string, pickle::TensorRef> leaves;
  if (const auto* pairs = state_dict.as_mapping()) {
    for (const auto& [key, value] : *pairs) {
      const std::string* name = key.as_string();
      const auto leaf = pickle::as_tensor(value);
      if (name == nullptr || !leaf) continue;
      const bool wrapped = name->starts_with("module.");
      leaves.emplace(wrapped ? name->substr(7) : *name, *leaf);
    }
  }
  std::set<std::string> used;
  for (const Model::Entry& entry : model.entries()) {
    const auto found = leaves.find(entry.name);
    if (found == leaves.end()) {
      // Old files lack this counter; the reference tolerates it too.
      if (!entry.name.ends_with("num_batches_tracked")) match.missing.push_back(entry.name);
      continue;
    }
    used.insert(entry.name);
    if (same_shape(*entry.tensor, found->second)) {
      match.pairs.push_back({entry, found->second});
    } else {
      match.mismatched.push_back(entry.name + ": file " + shape_text(found->second.sizes) +
                                 ", model " + shape_text(entry.tensor->sizes()));
    }
  }
  for (const auto& [name, leaf] : leaves) {
    if (!used.contains(name)) match.unexpected.push_back(name);
  }
  return match;
}

namespace {

std::string other_kind(const std::string& what) {
  return what + ": it was saved by another kind of optimizer";
}

// Every number in our group, which includes those that make the kind (betas, momentum), is in the
// file's; flags came and went between releases of torch.
void check_group(const Optimizer& optimizer, const pickle::Value& group, const std::string& path) {
  const pickle::Value own = optimizer.group();
  for (const auto& [key, value] : *own.as_mapping()) {
    if (value.is_none() || value.as_bool() || group.find(key) != nullptr) continue;
    throw CheckpointError(path, other_kind("optimizer group lacks '" + *key.as_string() + "'"));
  }
}

// One parameter's state in the file, checked against the parameter.
std::vector<at::Tensor> read_state(const Optimizer& optimizer, std::size_t i,
                                   const pickle::Value& state, const CheckpointFile& file) {
  std::vector<at::Tensor> tensors;
  const std::string where = "optimizer state of parameter " + std::to_string(i);
  for (const std::string& name : optimizer.state_names()) {
    const pickle::Value* value = state.find(name);
    const auto leaf = value != nullptr ? pickle::as_tensor(*value) : std::nullopt;
    if (!leaf) {
      throw CheckpointError(file.path(), other_kind(where + " lacks the tensor '" + name + "'"));
    }
    // The step is one number, every other state is as large as its parameter.
    const bool fits =
        name == "step" ? leaf->numel() == 1 : same_shape(optimizer.parameters()[i], *leaf);
    if (!fits) {
      throw CheckpointError(file.path(), where + ", '" + name + "', has shape " +
                                             shape_text(leaf->sizes) + ", the parameter " +
                                             shape_text(optimizer.parameters()[i].sizes()));
    }
    tensors.push_back(tensor_over(file, *leaf));
  }
  for (const auto& [name, value] : *state.as_mapping()) {
    const auto& own = optimizer.state_names();
    const bool known = std::any_of(own.begin(), own.end(),
                                   [&](const std::string& n) { return name == pickle::Value(n); });
    if (known || !pickle::as_tensor(value)) continue;
    throw CheckpointError(file.path(),
                          other_kind(where + " has the tensor " + pickle::describe(name) +
                                     ", which this run's does not keep"));
  }
  return tensors;
}

}  // namespace

void load_optimizer_tree(Optimizer& optimizer, const CheckpointFile& file, StateGate& gate) {
  const pickle::Value* tree = file.root().find("optimizer");
  const pickle::Value* groups = tree != nullptr ? tree->find("param_groups") : nullptr;
  const pickle::Value* states = tree != nullptr ? tree->find("state") : nullptr;
  const auto* group_items = groups != nullptr ? groups->as_sequence() : nullptr;
  if (group_items == nullptr || states == nullptr || states->as_mapping() == nullptr) {
    throw CheckpointError(file.path(), "its 'optimizer' has no 'state' and 'param_groups'");
  }
  if (group_items->size() != 1) {
    throw CheckpointError(file.path(), "its optimizer has " + std::to_string(group_items->size()) +
                                           " parameter groups, this run has 1");
  }
  const pickle::Value* params = group_items->front().find("params");
  const auto* indices = params != nullptr ? params->as_sequence() : nullptr;
  const std::size_t count = indices != nullptr ? indices->size() : 0;
  if (count != optimizer.parameters().size()) {
    throw CheckpointError(file.path(), "its optimizer has " + std::to_string(count) +
                                           " parameters, this model has " +
                                           std::to_string(optimizer.parameters().size()));
  }
  check_group(optimizer, group_items->front(), file.path());
  std::map<std::int64_t, const pickle::Value*> by_index;
  for (const auto& [key, value] : *states->as_mapping()) {
    if (const auto index = key.as_int()) by_index[*index] = &value;
  }
  std::vector<std::vector<at::Tensor>> loaded(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto index = (*indices)[i].as_int();
    const auto found = index ? by_index.find(*index) : by_index.end();
    if (found == by_index.end()) continue;
    const pickle::Value* const state = found->second;
    if (state->as_mapping() == nullptr) {
      throw CheckpointError(file.path(),
                            "optimizer state of parameter " + std::to_string(i) + " is no mapping");
    }
    loaded[i] = read_state(optimizer, i, *state, file);
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (loaded[i].empty()) {
      optimizer.clear_state(i, gate);
    } else {
      optimizer.load_state(i, loaded[i], gate);
    }
  }
  optimizer.load_group(group_items->front());
}

}  // namespace millrace
