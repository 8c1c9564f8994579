// Our AdamW against LibTorch's own.
#include <gtest/gtest.h>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/staging/state_gate.h"
#include "tests/torch/support/small_nets.h"
#include "tests/torch/support/stepping.h"

namespace millrace {
namespace {

void expect_same_path(const AdamWOptions& options) {
  const auto our_parameters = test::some_parameters();
  const auto their_parameters = test::some_parameters();
  const auto ours = adamw(options)(our_parameters);
  const auto theirs = test::torch_adamw(their_parameters, options);
  StateGate gate;
  for (std::uint64_t step = 0; step < 300; ++step) {
    const std::size_t without = step % 3 == 0 ? 2 : SIZE_MAX;
    test::set_gradients(our_parameters, step, without);
    test::set_gradients(their_parameters, step, without);
    ours->step(gate);
    theirs->step();
    for (std::size_t i = 0; i < our_parameters.size(); ++i) {
      ASSERT_TRUE(our_parameters[i].allclose(their_parameters[i], 1e-5, 1e-6))
          << "step " << step << ", parameter " << i;
    }
  }
  EXPECT_FALSE(our_parameters[4].equal(test::some_parameters()[4]));
  EXPECT_TRUE(our_parameters[test::kFrozen].equal(test::some_parameters()[test::kFrozen]));
}

TEST(AdamW, StepsLikeLibTorchs) { expect_same_path({.lr = 1e-2}); }
TEST(AdamW, StepsLikeLibTorchsWithAmsgrad) { expect_same_path({.lr = 1e-2, .amsgrad = true}); }
TEST(AdamW, StepsLikeLibTorchsWithEveryOption) {
  expect_same_path({.lr = 3e-3, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-5, .weight_decay = 0.3});
}

TEST(AdamW, MaximizingIsMinimizingTheNegative) {
  const auto up = test::some_parameters();
  const auto down = test::some_parameters();
  const auto maximizing = adamw({.lr = 1e-2, .maximize = true})(up);
  const auto minimizing = adamw({.lr = 1e-2})(down);
  StateGate gate;
  for (std::uint64_t step = 0; step < 20; ++step) {
    test::set_gradients(up, step);
    test::set_gradients(down, step);
    for (const at::Tensor& parameter : down) {
      if (parameter.grad().defined()) parameter.mutable_grad().neg_();
    }
    maximizing->step(gate);
    minimizing->step(gate);
  }
  EXPECT_TRUE(test::bit_equal(up, down));
}

TEST(AdamW, CountsStepsPerParameter) {
  const auto parameters = test::some_parameters();
  const auto optimizer = adamw()(parameters);
  StateGate gate;
  for (std::uint64_t step = 0; step < 6; ++step) {
    test::set_gradients(parameters, step, step % 2 == 0 ? 1 : SIZE_MAX);
    optimizer->step(gate);
  }
  const auto steps_of = [&](std::size_t i) { return optimizer->state(i)[0].item<double>(); };
  EXPECT_EQ(steps_of(0), 6);
  EXPECT_EQ(steps_of(1), 3);
  EXPECT_EQ(steps_of(4), 6);
  EXPECT_TRUE(optimizer->state(test::kFrozen).empty());
}

TEST(AdamW, RefusesWhatPythonRefuses) {
  EXPECT_THROW(adamw({.lr = -1}), ConfigError);
  EXPECT_THROW(adamw({.beta1 = 1}), ConfigError);
  EXPECT_THROW(adamw({.beta2 = -0.1}), ConfigError);
  EXPECT_THROW(adamw({.eps = -1}), ConfigError);
  EXPECT_THROW(adamw({.weight_decay = -1}), ConfigError);
}

}  // namespace
}  // namespace millrace
