// Captures share what did not change, notice what did, and cost the same for any number of tensors.
#include "millrace/runtime/torch/state_capture.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include "millrace/io/pickle_walk.h"
#include "millrace/runtime/staging/state_gate.h"
#include "millrace/runtime/torch/state_dict.h"
#include "tests/support/alloc_counter.h"
#include "tests/torch/support/named_tensors.h"
#include "tests/torch/support/small_nets.h"
#include "tests/torch/support/stepping.h"

namespace millrace {
namespace {

// A capture of someone who has seen nothing before.
CapturedState fresh(const Model& model, const Optimizer& optimizer) {
  return StateCapture(model, optimizer).capture(true);
}

void expect_equal(const CapturedState& a, const CapturedState& b) {
  EXPECT_EQ(a.state_dict, b.state_dict);
  EXPECT_EQ(a.optimizer, b.optimizer);
  ASSERT_EQ(a.storages.size(), b.storages.size());
  for (std::size_t i = 0; i < a.storages.size(); ++i) {
    EXPECT_EQ(a.storages[i].bytes.data(), b.storages[i].bytes.data());
    EXPECT_EQ(a.storages[i].bytes.size(), b.storages[i].bytes.size());
    EXPECT_EQ(a.storages[i].mutation, b.storages[i].mutation);
  }
}

TEST(StateCapture, SharesTreesUntilSomethingChanges) {
  const Model model(test::mixed_net());
  const auto optimizer = adamw({.lr = 0.5})(test::parameters_of(model));
  StateCapture states(model, *optimizer);
  const CapturedState first = states.capture(true);
  StateGate gate;
  test::set_gradients(optimizer->parameters(), 1);
  optimizer->step(gate);
  optimizer->learning_rates()[0] = 0.25;
  const CapturedState second = states.capture(true);
  EXPECT_EQ(states.rebuilds(), 1u);
  EXPECT_EQ(pickle::node_of(first.state_dict), pickle::node_of(second.state_dict));
  EXPECT_EQ(pickle::node_of(*first.optimizer.find("state")),
            pickle::node_of(*second.optimizer.find("state")));
  const auto rate = [](const CapturedState& state) {
    return state.optimizer.find("param_groups")->as_sequence()->front().find("lr")->as_double();
  };
  EXPECT_EQ(rate(first), 0.5);
  EXPECT_EQ(rate(second), 0.25);
  expect_equal(second, fresh(model, *optimizer));
}

TEST(StateCapture, WithAndWithoutTheOptimizerAreKeptApart) {
  const Model model(test::mixed_net());
  const auto optimizer = adamw()(test::parameters_of(model));
  StateCapture states(model, *optimizer);
  const std::size_t all = states.capture(true).storages.size();
  const CapturedState weights = states.capture(false);
  EXPECT_TRUE(weights.optimizer.is_none());
  EXPECT_LT(weights.storages.size(), all);
  EXPECT_EQ(states.capture(true).storages.size(), all);
  EXPECT_EQ(states.capture(false).storages.size(), weights.storages.size());
  EXPECT_EQ(states.rebuilds(), 2u);
}

TEST(StateCapture, NoticesEveryChangeOfTheModules) {
  test::ChangingNet net = test::changing_net();
  const Model model(net.functions);
  const auto optimizer = adamw()(test::parameters_of(model));
  StateCapture states(model, *optimizer);
  std::size_t rebuilds = 1;
  states.capture(true);
  for (const auto& change : net.changes) {
    SCOPED_TRACE(change.name);
    change.make();
    const CapturedState state = states.capture(true);
    EXPECT_EQ(states.rebuilds(), ++rebuilds);
    EXPECT_EQ(state.state_dict,
              StateCapture(Model(net.functions), *optimizer).capture(true).state_dict);
    states.capture(true);
    EXPECT_EQ(states.rebuilds(), rebuilds);
  }
}

TEST(StateCapture, NoticesEveryChangeOfATensor) {
  const Model model(test::mixed_net({.width = 8}));
  const auto optimizer = adamw()(test::parameters_of(model));
  at::Tensor weight = test::tensor_named(model, "mid.weight");
  at::Tensor mean = test::tensor_named(model, "norm.running_mean");
  struct Change {
    const char* name;
    std::function<void()> make;
  };
  const at::NoGradGuard no_grad;
  const std::vector<Change> changes = {
      {"other memory",
       [&] {
         weight.set_data(test::random_tensor({8, 8}, 1));
       }},
      {"other strides", [&] { weight.t_(); }},
      {"another shape",
       [&] {
         mean.resize_({2, 4});
       }},
      {"larger", [&] { mean.resize_({4096}); }},
      {"another offset", [&] { mean.set_data(mean.narrow(0, 8, 8)); }},
      {"another type", [&] { mean.set_data(mean.to(at::kDouble)); }},
      {"the state of a parameter gone",
       [&] {
         StateGate gate;
         optimizer->clear_state(0, gate);
       }},
  };
  StateCapture states(model, *optimizer);
  states.capture(true);
  std::size_t rebuilds = 1;
  for (const Change& change : changes) {
    SCOPED_TRACE(change.name);
    change.make();
    expect_equal(states.capture(true), fresh(model, *optimizer));
    const bool clears =
        std::string(change.name).starts_with("the state");  // AdamW's stays, as zeros
    EXPECT_EQ(states.rebuilds(), clears ? rebuilds : ++rebuilds);
  }
}

TEST(StateCapture, NoticesStatesThatAppearAndGo) {
  const Model model(test::mixed_net({.width = 8}));
  const auto optimizer = sgd({.momentum = 0.9})(test::parameters_of(model));
  StateCapture states(model, *optimizer);
  StateGate gate;
  const std::uint64_t to_come = states.capture(true).bytes_to_come;
  const auto bytes = [&] {
    std::uint64_t sum = 0;
    for (const CapturedStorage& storage : states.capture(true).storages)
      sum += storage.bytes.size();
    return sum;
  };
  const std::uint64_t before = bytes();
  for (const std::size_t without : {std::size_t{0}, SIZE_MAX}) {
    test::set_gradients(optimizer->parameters(), 1, without);
    optimizer->parameters()[test::kFrozen].mutable_grad().reset();
    optimizer->step(gate);
    expect_equal(states.capture(true), fresh(model, *optimizer));
  }
  EXPECT_EQ(states.rebuilds(), 3u);
  EXPECT_LE(bytes(), before + to_come);
  EXPECT_GT(bytes(), before);
  optimizer->clear_state(0, gate);
  expect_equal(states.capture(true), fresh(model, *optimizer));
  EXPECT_EQ(states.rebuilds(), 4u);
}

// What one capture allocates once its trees are made.
std::uint64_t allocations(const ModelFunctions& net) {
  const Model model(net);
  const auto optimizer = adamw()(test::parameters_of(model));
  StateCapture states(model, *optimizer);
  states.capture(true);
  const test::AllocationCount count;
  const CapturedState state = states.capture(true);
  return count.so_far();
}

TEST(StateCapture, AllocatesTheSameForAnyNumberOfTensors) {
  const std::uint64_t few = allocations(test::many_tensors(100));
  EXPECT_LE(few, 60u);
  EXPECT_EQ(allocations(test::many_tensors(10'000)), few);
}

// LibTorch hands out a copy of the table of children, which has a few allocations for each.
TEST(StateCapture, AllocatesAFewPerModule) {
  const std::uint64_t few = allocations(test::many_modules(100));
  const std::uint64_t many = allocations(test::many_modules(1'100));
  EXPECT_LE((many - few) / 1'000, 4u);
  // Linear, but for the tables' growth.
  EXPECT_NEAR(static_cast<double>(allocations(test::many_modules(2'100)) - many),
              static_cast<double>(many - few), 20);
}

}  // namespace
}  // namespace millrace
