#include "examples/trainers/mnist/net.h"

#include <torch/nn/functional.h>
#include <torch/nn/modules.h>

#include <utility>

namespace nn = torch::nn;

namespace {

struct DigitNet : nn::Module {
  explicit DigitNet(std::int64_t width)
      : conv1(register_module("conv1", nn::Conv2d(nn::Conv2dOptions(1, 16, 3).padding(1)))),
        norm1(register_module("norm1", nn::BatchNorm2d(16))),
        conv2(register_module("conv2", nn::Conv2d(nn::Conv2dOptions(16, 32, 3).padding(1)))),
        norm2(register_module("norm2", nn::BatchNorm2d(32))),
        hidden(register_module("hidden", nn::Linear(32 * 7 * 7, width))),
        dropout(register_module("dropout", nn::Dropout(0.5))),
        scores(register_module("scores", nn::Linear(width, 10))) {}

  torch::Tensor forward(const torch::Tensor& images) {
    torch::Tensor x = torch::max_pool2d(torch::relu(norm1(conv1(images))), 2);
    x = torch::max_pool2d(torch::relu(norm2(conv2(x))), 2);
    return scores(dropout(torch::relu(hidden(x.flatten(1)))));
  }

  nn::Conv2d conv1;
  nn::BatchNorm2d norm1;
  nn::Conv2d conv2;
  nn::BatchNorm2d norm2;
  nn::Linear hidden;
  nn::Dropout dropout;
  nn::Linear scores;
};

}  // namespace

std::unique_ptr<millrace::Strategy> digit_classifier(std::int64_t width, double lr,
                                                     millrace::SingleDeviceOptions options) {
  return millrace::single_device(std::make_shared<DigitNet>(width), millrace::cross_entropy,
                                 millrace::adamw({.lr = lr}), std::move(options));
}
