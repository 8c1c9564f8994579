// What a program with a model includes.
#include <millrace/millrace.h>
#include <torch/torch.h>

namespace mr = millrace;

mr::Parts parts_with_a_model() {
  mr::Parts parts;
  parts.strategy = mr::single_device(std::make_shared<torch::nn::LinearImpl>(2, 2),
                                     mr::cross_entropy, mr::sgd({.lr = 0.1}));
  parts.hooks = mr::default_hooks();
  return parts;
}
