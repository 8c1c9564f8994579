#include "tests/torch/support/linear_stack.h"

#include <torch/torch.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "millrace/runtime/torch/tensor_dataset.h"

namespace millrace::test {
namespace {

constexpr std::int64_t kWidth = 1024;

struct LinearStack : torch::nn::Module {
  explicit LinearStack(std::int64_t depth) {
    for (std::int64_t i = 0; i < depth; ++i) {
      layers.push_back(
          register_module("layer" + std::to_string(i), torch::nn::Linear(kWidth, kWidth)));
    }
  }
  torch::Tensor forward(torch::Tensor x) {
    for (auto& layer : layers) x = torch::relu(layer(x));
    return x;
  }
  std::vector<torch::nn::Linear> layers;
};

}  // namespace

Parts linear_stack_parts(std::int64_t mib, const SingleDeviceOptions& device, std::int64_t batch,
                         std::int64_t batches) {
  const std::int64_t layer_bytes = 12 * (kWidth * kWidth + kWidth);
  const auto depth = std::max<std::int64_t>(1, (mib << 20) / layer_bytes);
  const auto samples = batch * batches;
  Parts parts;
  parts.strategy = single_device(std::make_shared<LinearStack>(depth), cross_entropy,
                                 adamw({.lr = 1e-4}), device);
  parts.train = loader(tensor_dataset({torch::randn({samples, kWidth}),
                                       torch::randint(kWidth, {samples}, torch::kInt64)}),
                       {.batch_size = batch});
  return parts;
}

}  // namespace millrace::test
