#include "tests/torch/support/small_nets.h"

#include <torch/torch.h>

#include <string>
#include <utility>

#include "millrace/runtime/torch/single_device.h"
#include "millrace/runtime/torch/tensor_dataset.h"

namespace millrace::test {
namespace {

namespace nn = torch::nn;

struct WeightImpl : nn::Module {  // a linear layer that is only a given weight
  WeightImpl(const torch::Tensor& given, bool trained)
      : weight(register_parameter("weight", given, trained)) {}
  torch::Tensor forward(const torch::Tensor& x) { return torch::linear(x, weight); }
  torch::Tensor weight;
};
TORCH_MODULE(Weight);

torch::Tensor middle_of_larger(std::int64_t size) {
  return torch::rand({2 * size}).narrow(0, size / 2, size);
}

struct MixedNet : nn::Module {
  explicit MixedNet(const MixedNetOptions& o)
      : scale(register_parameter("scale", middle_of_larger(o.width))),
        hidden(register_module("hidden", nn::Linear(8, o.width))),
        norm(register_module("norm", nn::BatchNorm1d(o.width))),
        dropout(register_module("dropout", nn::Dropout(o.dropout))),
        mid(register_module("mid", Weight(square(o.width), true))),
        frozen(register_module("frozen", Weight(square(o.width), false))),
        tied(register_module("tied", Weight(mid->weight, true))),
        scores(register_module("scores", nn::Linear(o.width, 4))) {}

  static torch::Tensor square(std::int64_t width) { return torch::randn({width, width}) * 0.05; }

  torch::Tensor forward(const torch::Tensor& input) {
    torch::Tensor x = dropout(norm(torch::relu(hidden(input)))) * scale;
    x = torch::tanh(mid(x)) + x;
    x = torch::tanh(frozen(x)) + x;
    x = torch::tanh(tied(x)) + x;
    return scores(x);
  }

  torch::Tensor scale;
  nn::Linear hidden;
  nn::BatchNorm1d norm;
  nn::Dropout dropout;
  Weight mid, frozen, tied;
  nn::Linear scores;
};

struct WideNormNet : nn::Module {
  torch::Tensor forward(const torch::Tensor& x) { return scores(norm(hidden(x))); }
  nn::Linear hidden = register_module("hidden", nn::Linear(8, 5000));
  nn::BatchNorm1d norm = register_module("norm", nn::BatchNorm1d(5000));
  nn::Linear scores = register_module("scores", nn::Linear(5000, 4));
};

struct NestedNet : nn::Module {
  NestedNet() {
    register_module("first", nn::Linear(2, 3));
    register_buffer("table", torch::arange(6, torch::kInt64).view({2, 3}));
    register_parameter("gain", torch::ones({3}));
    register_module("body", nn::Sequential(nn::Linear(3, 3), nn::ReLU(), nn::BatchNorm2d(3)));
    register_buffer("count", torch::tensor(41, torch::kInt64));
    register_parameter("bias", torch::tensor(0.5));
  }
  torch::Tensor forward(const torch::Tensor& x) { return x; }
};

struct ManyTensors : nn::Module {
  explicit ManyTensors(std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      register_parameter("p" + std::to_string(i), torch::full({1}, static_cast<double>(i)));
    }
  }
  torch::Tensor forward(const torch::Tensor& x) { return x; }
};

struct ManyModules : nn::Module {
  explicit ManyModules(std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      register_module("layer_with_a_long_name_" + std::to_string(i), nn::Linear(1, 1));
    }
  }
  torch::Tensor forward(const torch::Tensor& x) { return x; }
};

struct Changing : nn::Module {
  Changing() {
    register_parameter("first", torch::ones({3}));
    register_parameter("second", torch::ones({4}));
    register_module("body", nn::Sequential(nn::Linear(3, 3), nn::BatchNorm1d(3)));
    register_module("head", nn::Linear(3, 2));
  }
  torch::Tensor forward(const torch::Tensor& x) { return x; }

  std::vector<ChangingNet::Change> changes() {
    return {
        {"a parameter more", [this] { register_parameter("third", torch::ones({2})); }},
        {"a buffer more", [this] { register_buffer("mean", torch::zeros({2})); }},
        {"another parameter", [this] { parameters_["first"] = torch::ones({3}); }},
        {"a module more", [this] { register_module("extra", nn::Linear(1, 1)); }},
        {"another module", [this] { replace_module("extra", nn::Linear(1, 1)); }},
        {"another name", [this] { rename("extra", "other"); }},
        {"a module fewer", [this] { unregister_module("other"); }},
        {"another order", [this] { rename("body", "body"); }},
        {"a parameter fewer", [this] { parameters_.erase("second"); }},
    };
  }

 private:
  void rename(const std::string& from, const std::string& to) {
    const auto module = named_children()[from];
    unregister_module(from);
    register_module(to, module);
  }
};

template <class Net>
ModelFunctions functions_of(std::shared_ptr<Net> net) {
  ModelFunctions functions;
  functions.module = net;
  functions.forward = [net](const at::Tensor& input) { return net->forward(input); };
  functions.loss = cross_entropy;
  return functions;
}

template <class Wrapped>
class Reference final : public TorchOptimizer {
 public:
  template <class Options>
  Reference(std::vector<at::Tensor> parameters, const Options& options)
      : wrapped_(std::move(parameters), options) {}
  void step() override { wrapped_.step(); }

 private:
  Wrapped wrapped_;
};

}  // namespace

ModelFunctions mixed_net(MixedNetOptions options) {
  return functions_of(std::make_shared<MixedNet>(options));
}

ModelFunctions wide_norm_net() { return functions_of(std::make_shared<WideNormNet>()); }

std::shared_ptr<const Dataset> labelled_points(std::int64_t count, std::uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const torch::Tensor x = at::randn({count, 8}, generator);
  const torch::Tensor label =
      (x.select(1, 0) > 0).to(torch::kInt64) * 2 + (x.select(1, 1) > 0).to(torch::kInt64);
  return tensor_dataset({x, label});
}

ModelFunctions nested_net() { return functions_of(std::make_shared<NestedNet>()); }

ModelFunctions many_tensors(std::int64_t count) {
  return functions_of(std::make_shared<ManyTensors>(count));
}

ModelFunctions many_modules(std::int64_t count) {
  return functions_of(std::make_shared<ManyModules>(count));
}

ChangingNet changing_net() {
  const auto net = std::make_shared<Changing>();
  return {functions_of(net), net->changes()};
}

std::unique_ptr<TorchOptimizer> torch_adamw(std::vector<at::Tensor> parameters,
                                            const AdamWOptions& o) {
  return std::make_unique<Reference<torch::optim::AdamW>>(std::move(parameters),
                                                          torch::optim::AdamWOptions(o.lr)
                                                              .betas({o.beta1, o.beta2})
                                                              .eps(o.eps)
                                                              .weight_decay(o.weight_decay)
                                                              .amsgrad(o.amsgrad));
}

std::unique_ptr<TorchOptimizer> torch_sgd(std::vector<at::Tensor> parameters, const SgdOptions& o) {
  return std::make_unique<Reference<torch::optim::SGD>>(std::move(parameters),
                                                        torch::optim::SGDOptions(o.lr)
                                                            .momentum(o.momentum)
                                                            .dampening(o.dampening)
                                                            .weight_decay(o.weight_decay)
                                                            .nesterov(o.nesterov));
}

}  // namespace millrace::test
