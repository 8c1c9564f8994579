// Our SGD against LibTorch's own.
#include <gtest/gtest.h>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/staging/state_gate.h"
#include "tests/torch/support/small_nets.h"
#include "tests/torch/support/stepping.h"

namespace millrace {
namespace {

void expect_same_path(const SgdOptions& options) {
  const auto our_parameters = test::some_parameters();
  const auto their_parameters = test::some_parameters();
  const auto ours = sgd(options)(our_parameters);
  const auto theirs = test::torch_sgd(their_parameters, options);
  StateGate gate;
  for (std::uint64_t step = 0; step < 300; ++step) {
    // Parameter 2 misses the first step, so its momentum starts later than the others'.
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

TEST(Sgd, StepsLikeLibTorchs) { expect_same_path({.lr = 1e-2}); }
TEST(Sgd, StepsLikeLibTorchsWithWeightDecay) {
  expect_same_path({.lr = 1e-2, .weight_decay = 0.1});
}
TEST(Sgd, StepsLikeLibTorchsWithMomentum) { expect_same_path({.lr = 1e-2, .momentum = 0.9}); }
TEST(Sgd, StepsLikeLibTorchsWithDampening) {
  expect_same_path({.lr = 1e-2, .momentum = 0.9, .dampening = 0.4, .weight_decay = 0.01});
}
TEST(Sgd, StepsLikeLibTorchsWithNesterov) {
  expect_same_path({.lr = 1e-2, .momentum = 0.9, .weight_decay = 0.01, .nesterov = true});
}

TEST(Sgd, HasNoStateBeforeTheFirstStep) {
  const auto parameters = test::some_parameters();
  const auto optimizer = sgd({.momentum = 0.9})(parameters);
  EXPECT_TRUE(optimizer->state(0).empty());
  StateGate gate;
  test::set_gradients(parameters, 0, 2);
  optimizer->step(gate);
  EXPECT_EQ(optimizer->state(0).size(), 1u);
  EXPECT_TRUE(optimizer->state(2).empty());
  EXPECT_TRUE(optimizer->state(test::kFrozen).empty());
  // The first momentum is the gradient itself.
  EXPECT_TRUE(optimizer->state(0)[0].equal(test::random_tensor({4, 5}, 100)));
}

TEST(Sgd, RefusesWhatPythonRefuses) {
  EXPECT_THROW(sgd({.lr = -1}), ConfigError);
  EXPECT_THROW(sgd({.momentum = -1}), ConfigError);
  EXPECT_THROW(sgd({.weight_decay = -1}), ConfigError);
  EXPECT_THROW(sgd({.nesterov = true}), ConfigError);
  EXPECT_THROW(sgd({.momentum = 0.9, .dampening = 0.1, .nesterov = true}), ConfigError);
}

}  // namespace
}  // namespace millrace
