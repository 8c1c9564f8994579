// Small nets, data and reference optimizers for tests. The only test file that includes all of
// torch/ is small_nets.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "millrace/runtime/engine/dataset.h"
#include "millrace/runtime/torch/model.h"
#include "millrace/runtime/torch/optimizer.h"

namespace millrace::test {

struct MixedNetOptions {
  std::int64_t width = 128;  // mid.weight has width * width floats: above Staging::kSmall
  double dropout = 0;
};
// Eight numbers in, the scores of four classes out. In state_dict order, with what is special:
//   scale                          a parameter that views the middle of a larger storage
//   hidden.weight, hidden.bias
//   norm.weight, .bias, .running_mean, .running_var, .num_batches_tracked      BatchNorm1d
//   mid.weight
//   frozen.weight                  requires no gradient
//   tied.weight                    is mid.weight
//   scores.weight, scores.bias
ModelFunctions mixed_net(MixedNetOptions options = {});
// The same in and out, through a BatchNorm1d whose statistics are above Staging::kSmall.
ModelFunctions wide_norm_net();
// Eight numbers and the label they determine, by `seed`.
std::shared_ptr<const Dataset> labelled_points(std::int64_t count, std::uint64_t seed = 7);

// Only its tensors matter: a tree of modules with parameters, buffers and children registered in
// mixed order, integer and 0-dimensional buffers and a BatchNorm in a nested Sequential.
ModelFunctions nested_net();
// `count` parameters of one number each.
ModelFunctions many_tensors(std::int64_t count);

// A net whose structure is changed while it is in use; each change is made once.
struct ChangingNet {
  struct Change {
    const char* name;
    std::function<void()> make;
  };
  ModelFunctions functions;
  std::vector<Change> changes;
};
ChangingNet changing_net();
// `count` modules with two parameters each, in a row.
ModelFunctions many_modules(std::int64_t count);

// LibTorch's own optimizers, with the same options as ours (which must not maximize).
class TorchOptimizer {
 public:
  virtual ~TorchOptimizer() = default;
  virtual void step() = 0;  // keeps the gradients
};
std::unique_ptr<TorchOptimizer> torch_adamw(std::vector<at::Tensor> parameters,
                                            const AdamWOptions& options);
std::unique_ptr<TorchOptimizer> torch_sgd(std::vector<at::Tensor> parameters,
                                          const SgdOptions& options);

}  // namespace millrace::test
