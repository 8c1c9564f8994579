#include "millrace/runtime/torch/model.h"

#include <torch/nn/module.h>

#include <string_view>
#include <utility>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

using torch::nn::Module;

// The parameters where they are: named_parameters() copies every name.
struct ParametersOf : Module {
  static const torch::OrderedDict<std::string, at::Tensor>& get(const Module& module) {
    return module.*(&ParametersOf::parameters_);
  }
};

// Calls visit.tensor(name, tensor, buffer) and visit.enter(name, module), visit.leave() in Python's
// order, until one of them returns false.
template <class Visit>
bool walk(const Module& module, Visit& visit) {
  for (const auto& item : ParametersOf::get(module)) {
    if (item.value().defined() && !visit.tensor(item.key(), item.value(), false)) return false;
  }
  for (const auto& item : module.named_buffers(/*recurse=*/false)) {
    if (item.value().defined() && !visit.tensor(item.key(), item.value(), true)) return false;
  }
  for (const auto& child : module.named_children()) {
    if (!visit.enter(child.key(), child.value())) return false;
    if (!walk(*child.value(), visit) || !visit.leave()) return false;
  }
  return true;
}

// One thing a walk meets. What is held keeps its address from being used again.
struct Step {
  enum Kind : std::uint8_t { kParameter, kBuffer, kEnter, kLeave };
  Kind kind;
  std::string name;
  std::shared_ptr<const void> held;
  const void* identity;
};

std::int64_t version_of(const Module& module) {
  const std::string& type = module.name();
  const bool norm =
      type.find("BatchNorm") != std::string::npos || type.find("InstanceNorm") != std::string::npos;
  return norm ? 2 : 1;
}

}  // namespace

struct Model::Structure {
  std::uint64_t revision = 0;
  std::vector<Step> steps;
  std::vector<Entry> entries;
  std::vector<Version> versions;

  class Recorder;
  class Comparison;
};

class Model::Structure::Recorder {
 public:
  explicit Recorder(Structure& out) : out_(out) {}

  bool tensor(const std::string& name, const at::Tensor& tensor, bool buffer) {
    auto held = std::make_shared<const at::Tensor>(tensor);
    out_.entries.push_back({joined(name), buffer, held});
    const void* const identity = tensor.unsafeGetTensorImpl();
    out_.steps.push_back(
        {buffer ? Step::kBuffer : Step::kParameter, name, std::move(held), identity});
    return true;
  }
  bool enter(const std::string& name, const std::shared_ptr<Module>& module) {
    prefixes_.push_back(joined(name));
    out_.versions.push_back({prefixes_.back(), version_of(*module)});
    out_.steps.push_back({Step::kEnter, name, module, module.get()});
    return true;
  }
  bool leave() {
    prefixes_.pop_back();
    out_.steps.push_back({Step::kLeave, {}, nullptr, nullptr});
    return true;
  }

 private:
  std::string joined(const std::string& name) const {
    return prefixes_.empty() ? name : prefixes_.back() + "." + name;
  }

  Structure& out_;
  std::vector<std::string> prefixes_;
};

// The same walk again: false at the first difference.
class Model::Structure::Comparison {
 public:
  explicit Comparison(const Structure& known) : known_(known) {}

  bool tensor(const std::string& name, const at::Tensor& tensor, bool buffer) {
    return is(buffer ? Step::kBuffer : Step::kParameter, name, tensor.unsafeGetTensorImpl());
  }
  bool enter(const std::string& name, const std::shared_ptr<Module>& module) {
    return is(Step::kEnter, name, module.get());
  }
  bool leave() { return is(Step::kLeave, {}, nullptr); }
  bool complete() const { return next_ == known_.steps.size(); }

 private:
  bool is(Step::Kind kind, std::string_view name, const void* identity) {
    if (next_ == known_.steps.size()) return false;
    const Step& step = known_.steps[next_++];
    return step.kind == kind && step.identity == identity && step.name == name;
  }

  const Structure& known_;
  std::size_t next_ = 0;
};

Model::Model(ModelFunctions functions) : functions_(std::move(functions)) {
  if (!functions_.module) throw ConfigError("strategy.net", "is null");
}

Model::~Model() = default;

const Model::Structure& Model::structure() const {
  if (structure_) {
    Structure::Comparison comparison(*structure_);
    if (walk(*functions_.module, comparison) && comparison.complete()) return *structure_;
  }
  auto fresh = std::make_unique<Structure>();
  fresh->revision = structure_ ? structure_->revision + 1 : 1;
  fresh->versions.push_back({"", version_of(*functions_.module)});
  Structure::Recorder recorder(*fresh);
  walk(*functions_.module, recorder);
  structure_ = std::move(fresh);
  return *structure_;
}

const std::vector<Model::Entry>& Model::entries() const& { return structure().entries; }
const std::vector<Model::Version>& Model::versions() const& { return structure().versions; }
std::uint64_t Model::revision() const { return structure().revision; }

void Model::set_training(bool training) {
  if (training != functions_.module->is_training() || training != training_) {
    functions_.module->train(training);
  }
  training_ = training;
}

}  // namespace millrace
