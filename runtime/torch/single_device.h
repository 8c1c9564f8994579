// A model on one device: the strategy most programs use.
//
//     auto net = std::make_shared<Net>();
//     parts.strategy = single_device(net, cross_entropy, adamw({.lr = 1e-3}));
//
// `net` has forward(Tensor) -> Tensor; the batch's field 0 goes in, its output and field 1 into the
// loss. Call set_randomness(seed) before the net is made, so that its first weights are the seed's.
// On a GPU the net's tensors are moved there, all of a step runs on one stream, batches are valid
// for their step only, and every runner needs a train thread of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "millrace/runtime/engine/strategy.h"
#include "millrace/runtime/torch/model.h"
#include "millrace/runtime/torch/optimizer.h"

namespace millrace {

struct SingleDeviceOptions {
  int threads = 0;             // of LibTorch's operations; 0 leaves the process's setting
  std::string device = "cpu";  // or "cuda", "cuda:1"
};

// For single_device(). Throws ConfigError for `device`, which says whether this build has no CUDA,
// the machine no driver or one that is too old, or no such GPU.
std::unique_ptr<Strategy> make_single_device(ModelFunctions model, OptimizerFactory optimizer,
                                             SingleDeviceOptions options);

template <class Net, class Loss>
std::unique_ptr<Strategy> single_device(std::shared_ptr<Net> net, Loss loss,
                                        OptimizerFactory optimizer,
                                        SingleDeviceOptions options = {}) {
  ModelFunctions functions;
  functions.module = net;
  functions.forward = [net](const at::Tensor& input) { return net->forward(input); };
  functions.loss = std::move(loss);
  return make_single_device(std::move(functions), std::move(optimizer), std::move(options));
}

// Mean cross entropy of scores [N, classes] against int64 labels [N].
at::Tensor cross_entropy(const at::Tensor& scores, const at::Tensor& labels);

// Seeds LibTorch's generators, which are process-wide.
void set_randomness(std::uint64_t seed);

}  // namespace millrace
