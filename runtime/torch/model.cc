#include "millrace/runtime/torch/model.h"

#include <torch/nn/module.h>

#include <utility>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

std::string joined(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + "." + name;
}

void collect(const torch::nn::Module& module, const std::string& prefix,
             std::vector<Model::Entry>& out) {
  const auto add = [&](const auto& tensors, bool buffer) {
    for (const auto& item : tensors) {
      if (!item.value().defined()) continue;
      out.push_back(
          {joined(prefix, item.key()), buffer, std::make_shared<const at::Tensor>(item.value())});
    }
  };
  add(module.named_parameters(/*recurse=*/false), false);
  add(module.named_buffers(/*recurse=*/false), true);
  for (const auto& child : module.named_children()) {
    collect(*child.value(), joined(prefix, child.key()), out);
  }
}

void collect_versions(const torch::nn::Module& module, const std::string& prefix,
                      std::vector<Model::Version>& out) {
  const std::string& type = module.name();
  const bool norm =
      type.find("BatchNorm") != std::string::npos || type.find("InstanceNorm") != std::string::npos;
  out.push_back({prefix, norm ? 2 : 1});
  for (const auto& child : module.named_children()) {
    collect_versions(*child.value(), joined(prefix, child.key()), out);
  }
}

}  // namespace

Model::Model(ModelFunctions functions) : functions_(std::move(functions)) {
  if (!functions_.module) throw ConfigError("strategy.net", "is null");
}

Model::~Model() = default;

std::vector<Model::Entry> Model::entries() const {
  std::vector<Entry> all;
  collect(*functions_.module, "", all);
  return all;
}

std::vector<Model::Version> Model::versions() const {
  std::vector<Version> all;
  collect_versions(*functions_.module, "", all);
  return all;
}

void Model::set_training(bool training) {
  if (training != functions_.module->is_training() || training != training_) {
    functions_.module->train(training);
  }
  training_ = training;
}

}  // namespace millrace
