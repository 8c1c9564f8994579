// Millrace's side of peers_runner.py: a tiny model under the engine with the default hooks, and in
// two loops without. A line of input is one of these and a number of iterations, the answer the
// seconds per iteration, between two forward passes far from start and end:
//
//   libtorch  module, torch::optim and slices of shuffled tensors: nothing of ours
//   parts     our strategy and loader, called by hand
//   engine    the same parts, in a run
#include <torch/torch.h>

#include <chrono>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>

#include "millrace/hooks/default_hooks.h"
#include "millrace/runtime/engine/run.h"
#include "millrace/runtime/staging/staging.h"
#include "millrace/runtime/torch/single_device.h"
#include "millrace/runtime/torch/tensor_dataset.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr std::int64_t kInputs = 16, kClasses = 4, kBatch = 32;

struct Tiny : torch::nn::Module {
  explicit Tiny(std::int64_t iterations) : last(iterations) {
    layer = register_module("layer", torch::nn::Linear(kInputs, kClasses));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    if (calls == last / 10) started = SteadyClock::now();
    if (++calls == last) {
      const std::chrono::duration<double> spent = SteadyClock::now() - started;
      seconds = spent.count() / static_cast<double>(last - 1 - last / 10);
    }
    return layer(x);
  }
  const std::int64_t last;
  std::int64_t calls = 0;
  double seconds = 0;  // per iteration
  SteadyClock::time_point started;
  torch::nn::Linear layer{nullptr};
};

std::unique_ptr<Strategy> strategy_of(const std::shared_ptr<Tiny>& net) {
  return single_device(net, cross_entropy, sgd({.lr = 0.01, .momentum = 0.9}), {.threads = 1});
}

std::unique_ptr<DataLoader> batches(std::int64_t iterations) {
  const auto samples = kBatch * iterations;
  return loader(tensor_dataset({torch::randn({samples, kInputs}),
                                torch::randint(kClasses, {samples}, torch::kInt64)}),
                {.batch_size = kBatch});
}

void run_libtorch(const std::shared_ptr<Tiny>& net) {
  const auto samples = kBatch * net->last;
  const torch::Tensor order = torch::randperm(samples);
  const torch::Tensor inputs = torch::randn({samples, kInputs}).index_select(0, order);
  const torch::Tensor labels = torch::randint(kClasses, {samples}, torch::kInt64);
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.01).momentum(0.9));
  for (std::int64_t at = 0; at < samples; at += kBatch) {
    const torch::Tensor scores = net->forward(inputs.narrow(0, at, kBatch));
    const torch::Tensor loss = torch::cross_entropy_loss(scores, labels.narrow(0, at, kBatch));
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
  }
}

void run_parts(const std::shared_ptr<Tiny>& net) {
  Staging staging;
  const auto strategy = strategy_of(net);
  strategy->prepare(1, staging.gate());
  const auto data = batches(net->last);
  while (const Batch* batch = data->next()) {
    if (strategy->forward_backward(*batch).step_due) strategy->optimizer_step();
  }
}

void run_engine(const std::shared_ptr<Tiny>& net) {
  const test::TempDir folder;
  RunOptions options;
  options.work_dir = folder.path();
  options.max_epochs = 1;
  options.seed = 1;
  options.log_console = false;
  Parts parts;
  parts.strategy = strategy_of(net);
  parts.train = batches(net->last);
  parts.hooks = default_hooks();
  Runner runner(std::move(options), std::move(parts));
  run_or_throw(runner, {.handle_signals = false});
}

double seconds_per_iteration(const std::string& line) {
  std::istringstream words(line);
  std::string what;
  std::int64_t iterations = 0;
  words >> what >> iterations;
  const std::map<std::string, void (*)(const std::shared_ptr<Tiny>&)> ways = {
      {"libtorch", run_libtorch}, {"parts", run_parts}, {"engine", run_engine}};
  const auto way = ways.find(what);
  if (iterations < 100 || way == ways.end()) {
    throw std::runtime_error("no such command: " + line);
  }
  const auto net = std::make_shared<Tiny>(iterations);
  torch::set_num_threads(1);
  way->second(net);
  if (net->calls != iterations) throw std::runtime_error("iterations are missing");
  return net->seconds;
}

}  // namespace
}  // namespace millrace

int main() {
  try {
    for (std::string line; std::getline(std::cin, line);) {
      std::cout << "{\"seconds\": " << millrace::seconds_per_iteration(line) << "}" << std::endl;
    }
  } catch (const std::exception& error) {
    std::cerr << "tiny_worker: " << error.what() << "\n";
    return 1;
  }
}
