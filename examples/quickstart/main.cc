// Trains a small net on points of four quadrants. Run it twice: the second run resumes.
#include <millrace/millrace.h>
#include <torch/torch.h>

#include "examples/quickstart/stop_when_learned.h"

namespace mr = millrace;

struct Net : torch::nn::Module {
  torch::nn::Linear hidden = register_module("hidden", torch::nn::Linear(2, 32));
  torch::nn::Linear scores = register_module("scores", torch::nn::Linear(32, 2));
  torch::Tensor forward(const torch::Tensor& x) { return scores(torch::relu(hidden(x))); }
};

int main() {
  const torch::Tensor x = torch::randn({4096, 2});
  const auto points = mr::tensor_dataset({x, (x.prod(1) > 0).to(torch::kInt64)});

  mr::Parts parts;
  parts.strategy =
      mr::single_device(std::make_shared<Net>(), mr::cross_entropy, mr::adamw({.lr = 0.01}));
  parts.train = mr::loader(points, {.batch_size = 64, .shuffle = true});
  parts.val = mr::loader(points, {.batch_size = 256});
  parts.metrics.push_back(std::make_unique<mr::Accuracy>());
  parts.hooks = mr::default_hooks();  // among them a checkpoint after every epoch
  parts.hooks.add(std::make_unique<StopWhenLearned>());
  return mr::run(
      {.work_dir = "work/quickstart", .max_epochs = 20, .resume = mr::Resume::automatic()},
      std::move(parts));
}
