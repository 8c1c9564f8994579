// Which calls a step makes, and that they change no bit: the same optimizer steps with the gate
// open, closed, and opening on the way.
#include "millrace/runtime/torch/fused_step.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>

#include <thread>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/torch/state_dict.h"
#include "millrace/runtime/torch/tensor_bytes.h"
#include "tests/torch/support/closed_gate.h"
#include "tests/torch/support/small_nets.h"
#include "tests/torch/support/stepping.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::int64_t kSlice = FusedStep::kSlice;

struct Kind {
  const char* name;
  OptimizerFactory make;
};

std::vector<Kind> kinds() {
  return {{"adamw", adamw({.lr = 1e-2})},
          {"adamw without decay", adamw({.lr = 1e-2, .weight_decay = 0})},
          {"adamw, maximizing", adamw({.lr = 1e-2, .weight_decay = 0.3, .maximize = true})},
          {"amsgrad", adamw({.lr = 1e-2, .amsgrad = true})},
          {"sgd", sgd({.lr = 1e-2, .weight_decay = 0.1})},
          {"sgd, maximizing", sgd({.lr = 1e-2, .maximize = true})},
          {"momentum", sgd({.lr = 1e-2, .momentum = 0.9})},
          {"dampening", sgd({.lr = 1e-2, .momentum = 0.9, .dampening = 0.4, .weight_decay = 0.1})},
          {"nesterov", sgd({.lr = 1e-2, .momentum = 0.9, .nesterov = true})}};
}

// Sizes around a slice, odd ones, none, one; layouts that slices must not take for flat.
std::vector<at::Tensor> all_shapes() {
  using test::random_tensor;
  const at::Tensor shared = random_tensor({2 * kSlice + 10}, 7);
  std::vector<at::Tensor> parameters = {
      random_tensor({3, 5}, 1),
      random_tensor({2 * kSlice + 37}, 2),
      random_tensor({}, 3),
      random_tensor({0, 4}, 4),
      random_tensor({kSlice}, 5),
      random_tensor({kSlice + 1}, 6).to(at::kDouble),
      shared.narrow(0, 0, kSlice + 5),                  // two parameters that
      shared.narrow(0, kSlice + 5, kSlice + 5),         // live in one storage
      random_tensor({301, 300}, 8).t(),                 // dense, not contiguous
      random_tensor({300, 400}, 9).narrow(1, 50, 300),  // not dense
      random_tensor({4, 20, 30, 31}, 10).contiguous(at::MemoryFormat::ChannelsLast),
      random_tensor({kSlice - 1}, 11)};
  for (at::Tensor& parameter : parameters) parameter = parameter.detach().set_requires_grad(true);
  return parameters;
}

void set_gradients(const std::vector<at::Tensor>& parameters, std::uint64_t step) {
  test::set_gradients(parameters, step, step % 2 == 0 ? 1 : SIZE_MAX);
  for (const at::Tensor& parameter : parameters) {
    at::Tensor& gradient = parameter.mutable_grad();
    if (gradient.defined()) gradient = gradient.to(parameter.dtype());
  }
}

std::vector<CapturedStorage> captured(const Optimizer& optimizer) {
  StorageTable table;
  optimizer_tree(optimizer, table);
  return table.storages();
}

// How much of the state is copied before the step, and when the rest is.
enum class Copied { kNothing, kFirstHalf, kEveryThird, kRestDuringTheStep };

class StepsTheSame : public ::testing::TestWithParam<int> {};

TEST_P(StepsTheSame, BitByBitInEveryStateOfTheGate) {
  const int threads_before = at::get_num_threads();
  at::set_num_threads(GetParam());
  for (const Kind& kind : kinds()) {
    const auto free = kind.make(all_shapes());
    const auto gated = kind.make(all_shapes());
    StateGate open;
    std::uint64_t step = 0;
    for (const Copied copied : {Copied::kNothing, Copied::kFirstHalf, Copied::kEveryThird,
                                Copied::kRestDuringTheStep, Copied::kNothing}) {
      SCOPED_TRACE(std::string(kind.name) + ", step " + std::to_string(step));
      const auto storages = captured(*gated);
      test::ClosedGate closed(storages, [&](std::size_t part) {
        // The gate needs one large storage: before it has it, another thread copies all others.
        const bool large = storages[part].bytes.size() > std::size_t{kSlice};
        if (copied != Copied::kRestDuringTheStep || !large) return;
        static thread_local bool inside = false;
        if (std::exchange(inside, true)) return;
        std::jthread([&] { inside = true, closed.copy_all(); }).join();
        inside = false;
      });
      for (std::size_t i = 0; i < storages.size(); ++i) {
        if (copied == Copied::kFirstHalf && i < storages.size() / 2) closed.copy(i);
        if (copied == Copied::kEveryThird && i % 3 == 0) closed.copy(i);
      }
      set_gradients(free->parameters(), step);
      set_gradients(gated->parameters(), step);
      free->step(open);
      ASSERT_FALSE(closed.gate().open());
      gated->step(closed.gate());
      ASSERT_TRUE(test::bit_equal(test::whole_state(*free), test::whole_state(*gated)));
      ASSERT_TRUE(closed.saved_what_was_captured());
      ++step;
    }
  }
  at::set_num_threads(threads_before);
}
INSTANTIATE_TEST_SUITE_P(Threads, StepsTheSame, ::testing::Values(1, 2));

TEST(FusedStep, LayoutsOfAnyKindStepLikeLibTorch) {
  for (const bool other_gradients : {false, true}) {
    const auto ours = all_shapes();
    const auto theirs = all_shapes();
    const auto our_optimizer = adamw({.lr = 1e-2})(ours);
    const auto their_optimizer = test::torch_adamw(theirs, {.lr = 1e-2});
    StateGate gate;
    for (std::uint64_t step = 0; step < 20; ++step) {
      for (const auto& parameters : {ours, theirs}) {
        set_gradients(parameters, step);
        if (!other_gradients) continue;
        for (const at::Tensor& parameter : parameters) {
          at::Tensor& gradient = parameter.mutable_grad();
          if (gradient.defined() && gradient.dim() == 2) gradient = gradient.t().contiguous().t();
        }
      }
      our_optimizer->step(gate);
      their_optimizer->step();
      for (std::size_t i = 0; i < ours.size(); ++i) {
        ASSERT_TRUE(ours[i].allclose(theirs[i], 1e-5, 1e-6)) << "step " << step << ", " << i;
      }
    }
  }
}

// Notes what every kernel call was given: the elements of each entry.
class Calls {
 public:
  explicit Calls(std::vector<std::int64_t> sizes) {
    for (const std::int64_t size : sizes) {
      tensors_.push_back(at::zeros({size}));
      tensors_.back().mutable_grad() = at::zeros({size});
      states_.push_back({at::zeros({}), at::zeros({size})});
    }
  }
  // Parameter, count, state; parameter, count, state ...
  std::vector<CapturedStorage> storages() const {
    std::vector<CapturedStorage> all;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      all.push_back({storage_bytes(tensors_[i])});
      for (const at::Tensor& state : states_[i]) all.push_back({storage_bytes(state)});
    }
    return all;
  }
  std::vector<std::vector<std::int64_t>> step(StateGate& gate) {
    const at::NoGradGuard no_grad;
    std::vector<std::vector<std::int64_t>> calls;
    FusedStep step(gate, true, [&](FusedLists& lists) {
      std::vector<std::int64_t>& call = calls.emplace_back();
      for (const at::Tensor& tensor : lists.parameters) call.push_back(tensor.numel());
    });
    std::vector<FusedTarget> targets;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      targets.push_back({&tensors_[i], states_[i]});
    }
    step.run(targets);
    for (const auto& states : states_) EXPECT_EQ(states[0].item<float>(), 1.0F);
    return calls;
  }

 private:
  std::vector<at::Tensor> tensors_;
  std::vector<std::vector<at::Tensor>> states_;
};

TEST(FusedStep, MakesOneCallWhenTheGateIsOpen) {
  StateGate open;
  EXPECT_THAT(Calls({4, 3 * kSlice, 5}).step(open), ElementsAre(ElementsAre(4, 3 * kSlice, 5)));
}

TEST(FusedStep, StepsTheCopiedPrefixInOneCallAndTheRestInSlices) {
  Calls calls({4, 2 * kSlice, 5, 2 * kSlice + 9, kSlice, 6});
  test::ClosedGate closed(calls.storages());
  for (std::size_t i = 0; i < 9; ++i) closed.copy(i);    // the first three parameters
  for (std::size_t i = 12; i < 15; ++i) closed.copy(i);  // the fifth
  EXPECT_THAT(calls.step(closed.gate()),
              ElementsAre(ElementsAre(4, 2 * kSlice, 5), ElementsAre(kSlice), ElementsAre(kSlice),
                          ElementsAre(9), ElementsAre(kSlice), ElementsAre(6)));
}

TEST(FusedStep, MakesOneCallOfTheRestOnceTheGateIsOpen) {
  Calls calls({4 * kSlice, 7, 2 * kSlice, 8});
  const auto storages = calls.storages();
  test::ClosedGate closed(storages);
  for (std::size_t i = 0; i < storages.size(); ++i) {
    if (i != 0) closed.copy(i);  // the first parameter's last slice opens the gate
  }
  // Slice by slice while there is something to copy, then everything else.
  EXPECT_THAT(calls.step(closed.gate()),
              ElementsAre(ElementsAre(kSlice), ElementsAre(kSlice), ElementsAre(kSlice),
                          ElementsAre(kSlice), ElementsAre(7, 2 * kSlice, 8)));
}

std::vector<std::uint32_t> versions(const Optimizer& optimizer) {
  std::vector<std::uint32_t> all;
  for (std::size_t i = 0; i < optimizer.parameters().size(); ++i) {
    all.push_back(optimizer.parameters()[i]._version());
    for (const at::Tensor& state : optimizer.state(i)) all.push_back(state._version());
  }
  return all;
}

TEST(FusedStep, MovesTheVersionsOfWhatItWrote) {
  for (const bool closed : {false, true}) {
    for (const Kind& kind : kinds()) {
      const auto optimizer = kind.make(test::some_parameters());
      StateGate open;
      test::set_gradients(optimizer->parameters(), 0);
      optimizer->step(open);  // now every state is there
      const auto before = versions(*optimizer);
      test::set_gradients(optimizer->parameters(), 1, 2);
      test::ClosedGate gate(captured(*optimizer));
      optimizer->step(closed ? gate.gate() : open);
      const auto after = versions(*optimizer);
      std::size_t place = 0;
      for (std::size_t i = 0; i < optimizer->parameters().size(); ++i) {
        const bool stepped = i != 2 && i != test::kFrozen;
        const std::size_t states = optimizer->state(i).size();
        // Counts share a storage, and with it the counter.
        const bool counted = states > 0 && optimizer->state_names().front() == "step";
        for (std::size_t t = 0; t <= states; ++t, ++place) {
          if (counted && t == 1) continue;
          EXPECT_EQ(after[place] > before[place], stepped) << kind.name << " " << i << " " << t;
        }
      }
    }
  }
}

TEST(FusedStep, AutogradNoticesAStepBetweenForwardAndBackward) {
  for (const bool stepped : {false, true}) {
    const at::Tensor weight = test::random_tensor({4, 4}, 1).set_requires_grad(true);
    const auto optimizer = adamw()({weight});
    StateGate gate;
    const at::Tensor input = test::random_tensor({2, 4}, 2).set_requires_grad(true);
    const at::Tensor loss = input.matmul(weight).square().sum();
    loss.backward({}, /*retain_graph=*/true);
    loss.backward({}, /*retain_graph=*/true);
    const at::Tensor twice = weight.grad().clone();
    if (!stepped) {
      loss.backward();
      EXPECT_TRUE(weight.grad().allclose(twice.mul(1.5)));
      continue;
    }
    optimizer->step(gate);
    try {
      loss.backward();
      ADD_FAILURE() << "gradients of weights that are no longer there";
    } catch (const std::exception& error) {
      EXPECT_THAT(error.what(), HasSubstr("modified by an inplace operation"));
    }
  }
}

TEST(FusedStep, GradientsThatHaveAGraphAreFine) {
  const at::Tensor weight = test::random_tensor({4, 4}, 1).set_requires_grad(true);
  const auto optimizer = adamw({.lr = 1e-2})({weight});
  StateGate gate;
  for (int step = 0; step < 3; ++step) {
    const at::Tensor loss = weight.pow(3).sum();
    loss.backward({}, /*retain_graph=*/true, /*create_graph=*/true);
    const at::Tensor penalty = weight.grad().square().sum();
    penalty.backward();  // the gradient of a gradient
    const at::Tensor before = weight.detach().clone();
    optimizer->step(gate);
    EXPECT_FALSE(weight.equal(before));
    EXPECT_FALSE(weight.grad().defined());
  }
}

std::string refusal(Optimizer& optimizer) {
  StateGate gate;
  const auto before = test::whole_state(optimizer);
  std::string text = "stepped";
  try {
    optimizer.step(gate);
  } catch (const Error& error) {
    text = error.what();
  }
  EXPECT_TRUE(test::bit_equal(before, test::whole_state(optimizer))) << text;
  return text;
}

TEST(FusedStep, RefusesGradientsItCannotUseBeforeItWritesAnything) {
  const auto optimizer = adamw()(test::some_parameters());
  const at::Tensor last = optimizer->parameters()[4];
  test::set_gradients(optimizer->parameters(), 0);
  last.mutable_grad() = last.grad().to_sparse();
  EXPECT_THAT(refusal(*optimizer), HasSubstr("parameter 4 has a sparse gradient"));
  last.mutable_grad() = at::zeros({80, 91});
  EXPECT_THAT(refusal(*optimizer), HasSubstr("parameter 4 has a gradient of another shape"));
  last.mutable_grad() = at::zeros({80, 90}, at::kDouble);
  EXPECT_THAT(refusal(*optimizer), HasSubstr("parameter 4 has a gradient of another shape"));
  last.set_data(test::random_tensor({70, 90}, 1));
  last.mutable_grad() = at::zeros({70, 90});
  EXPECT_THAT(refusal(*optimizer), HasSubstr("parameter 4 changed its shape"));
}

TEST(FusedStep, AParameterThatThawsGetsItsState) {
  const auto ours = test::some_parameters();
  const auto theirs = test::some_parameters();
  const auto our_optimizer = adamw({.lr = 1e-2})(ours);
  const auto their_optimizer = test::torch_adamw(theirs, {.lr = 1e-2});
  EXPECT_TRUE(our_optimizer->state(test::kFrozen).empty());
  StateGate gate;
  for (std::uint64_t step = 0; step < 6; ++step) {
    for (const auto& parameters : {ours, theirs}) {
      if (step == 3) parameters[test::kFrozen].set_requires_grad(true);
      test::set_gradients(parameters, step);
    }
    our_optimizer->step(gate);
    their_optimizer->step();
  }
  EXPECT_TRUE(ours[test::kFrozen].allclose(theirs[test::kFrozen], 1e-5, 1e-6));
  EXPECT_FALSE(ours[test::kFrozen].equal(test::some_parameters()[test::kFrozen]));
  EXPECT_EQ(our_optimizer->state(test::kFrozen)[0].item<float>(), 3.0F);
}

TEST(FusedStep, SaysHowMuchStateIsToCome) {
  const auto optimizer = sgd({.momentum = 0.9})(test::some_parameters());
  EXPECT_EQ(optimizer->bytes_to_come(), (20 + 7 + 1 + 80 * 90) * sizeof(float));
  StateGate gate;
  test::set_gradients(optimizer->parameters(), 0);
  optimizer->step(gate);
  EXPECT_EQ(optimizer->bytes_to_come(), 0u);
  EXPECT_EQ(adamw()(test::some_parameters())->bytes_to_come(), 0u);
}

// On a device whole parameters are stepped, in runs; one without memory will do to count calls.
TEST(FusedStep, OnADeviceRunsOfWholeParametersAreStepped) {
  const at::NoGradGuard no_grad;
  const auto meta = at::TensorOptions(at::kMeta).dtype(at::kFloat);
  const auto tensor = [&](std::int64_t mib) { return at::zeros({mib << 18}, meta); };
  std::vector<at::Tensor> parameters;
  std::vector<std::vector<at::Tensor>> states;
  for (const std::int64_t mib : {4, 4, 4, 1, 40, 1}) {  // with two states: 12, 12, 12, 3, 120, 3
    parameters.push_back(tensor(mib));
    parameters.back().mutable_grad() = tensor(mib);
    states.push_back({at::zeros({}, meta), tensor(mib), tensor(mib)});
  }
  std::vector<FusedTarget> targets;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    targets.push_back({&parameters[i], states[i]});
  std::vector<std::size_t> calls;
  const auto kernel = [&](FusedLists& lists) { calls.push_back(lists.parameters.size()); };
  StateGate open;
  FusedStep(open, true, kernel).run(targets);
  EXPECT_THAT(calls, ElementsAre(6u));
  calls.clear();
  const std::vector<std::byte> captured(1 << 20);
  test::ClosedGate closed({{captured}});
  FusedStep(closed.gate(), true, kernel).run(targets);
  EXPECT_THAT(calls, ElementsAre(3u, 2u, 1u)) << "32 MiB are a run";
  for (const std::size_t i : {1, 4}) {
    parameters[i] = parameters[i].to(at::kDouble);
    parameters[i].mutable_grad() = at::zeros_like(parameters[i]);
    for (std::size_t s = 1; s < 3; ++s) states[i][s] = states[i][s].to(at::kDouble);
  }
  calls.clear();
  FusedStep(open, true, kernel).run(targets);
  EXPECT_THAT(calls, ElementsAre(4u, 2u)) << "one call a type";
}

}  // namespace
}  // namespace millrace
