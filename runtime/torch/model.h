// A LibTorch module as the strategies see it: forward, loss, and its named tensors in Python's
// order. Train context.
//
// Module versions go into `_metadata` as Python writes them: BatchNorm is 2, everything else 1.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace at {
class Tensor;
}
namespace torch::nn {
class Module;
}

namespace millrace {

using ForwardFunction = std::function<at::Tensor(const at::Tensor& input)>;
using LossFunction = std::function<at::Tensor(const at::Tensor& output, const at::Tensor& target)>;

struct ModelFunctions {
  std::shared_ptr<torch::nn::Module> module;
  ForwardFunction forward;
  LossFunction loss;
};

class Model {
 public:
  explicit Model(ModelFunctions functions);
  ~Model();

  struct Entry {
    std::string name;  // backbone.0.weight
    bool buffer;
    std::shared_ptr<const at::Tensor> tensor;  // the module's own, not a copy
  };
  struct Version {
    std::string module;  // "" for the root
    std::int64_t version;
  };
  // In the order of Python's state_dict: a module's parameters, its buffers, then its children.
  // References stay valid until a call finds other modules, names or tensors than the last one did;
  // then revision() grows too. A call that finds none copies nothing but names of children.
  const std::vector<Entry>& entries() const&;
  std::vector<Entry> entries() && { return static_cast<const Model&>(*this).entries(); }
  const std::vector<Version>& versions() const&;
  std::vector<Version> versions() && { return static_cast<const Model&>(*this).versions(); }
  std::uint64_t revision() const;

  const ForwardFunction& forward() const noexcept { return functions_.forward; }
  const LossFunction& loss() const noexcept { return functions_.loss; }
  void set_training(bool training);

 private:
  struct Structure;
  const Structure& structure() const;  // as it is now

  ModelFunctions functions_;
  bool training_ = false;
  mutable std::unique_ptr<const Structure> structure_;
};

}  // namespace millrace
