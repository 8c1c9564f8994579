// What both optimizers share: the gate, groups, and loading.
#include "millrace/runtime/torch/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <algorithm>

#include "millrace/io/memory_storage.h"
#include "millrace/io/pickler.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/staging/host_snapshot.h"
#include "millrace/runtime/staging/pth_image.h"
#include "millrace/runtime/staging/staging.h"
#include "millrace/runtime/torch/state_dict.h"
#include "millrace/runtime/torch/tensor_bytes.h"
#include "tests/torch/support/named_tensors.h"
#include "tests/torch/support/small_nets.h"
#include "tests/torch/support/stepping.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

struct Kind {
  const char* name;
  OptimizerFactory make;
};

std::vector<Kind> kinds() {
  return {{"adamw", adamw({.lr = 1e-2})},
          {"amsgrad", adamw({.lr = 1e-2, .amsgrad = true})},
          {"sgd", sgd({.lr = 1e-2})},
          {"momentum", sgd({.lr = 1e-2, .momentum = 0.9})},
          {"nesterov", sgd({.lr = 1e-2, .momentum = 0.9, .nesterov = true})}};
}

void train(Optimizer& optimizer, StateGate& gate, std::uint64_t first, std::uint64_t last) {
  for (std::uint64_t step = first; step < last; ++step) {
    test::set_gradients(optimizer.parameters(), step, step % 3 == 0 ? 2 : SIZE_MAX);
    optimizer.step(gate);
  }
}

// The optimizer's part of a checkpoint, written and read again.
CheckpointFile saved(const Optimizer& optimizer) {
  StorageTable table;
  pickle::Value root = pickle::Value::dict();
  root.set("optimizer", optimizer_tree(optimizer, table));
  Staging staging;
  PthImage image(staging.begin(table.storages(), StageMode::kBlocking), pickle::pickle(root), {});
  MemoryStorage storage;
  storage.commit("o.pth", image);
  return CheckpointFile::read(storage, "o.pth");
}

TEST(Optimizer, TakesTiedParametersOnce) {
  auto parameters = test::some_parameters();
  parameters.push_back(parameters[0]);
  EXPECT_EQ(adamw()(parameters)->parameters().size(), 5u);
  EXPECT_THROW(adamw()({}), ConfigError);
}

TEST(Optimizer, DropsTheGradients) {
  for (const Kind& kind : kinds()) {
    const auto parameters = test::some_parameters();
    StateGate gate;
    const auto optimizer = kind.make(parameters);
    train(*optimizer, gate, 0, 1);
    for (const at::Tensor& parameter : parameters) EXPECT_FALSE(parameter.grad().defined());
    const auto before = test::whole_state(*optimizer);
    optimizer->step(gate);  // nothing has a gradient: nothing happens
    EXPECT_TRUE(test::bit_equal(before, test::whole_state(*optimizer))) << kind.name;
  }
}

TEST(Optimizer, TiedWeightsStepOnceThroughAModel) {
  const Model ours(test::mixed_net({.width = 8}));
  const Model theirs(test::mixed_net({.width = 8}));
  {
    const at::NoGradGuard no_grad;
    for (const std::string& name : test::names_of(ours)) {
      test::tensor_named(theirs, name).copy_(test::tensor_named(ours, name));
    }
  }
  std::vector<at::Tensor> once;
  for (const at::Tensor& parameter : test::parameters_of(theirs)) {
    const bool known = std::any_of(once.begin(), once.end(),
                                   [&](const at::Tensor& t) { return t.is_same(parameter); });
    if (!known) once.push_back(parameter);
  }
  ASSERT_EQ(once.size() + 1, test::parameters_of(theirs).size());
  const auto our_optimizer = adamw({.lr = 1e-2})(test::parameters_of(ours));
  const auto their_optimizer = test::torch_adamw(once, {.lr = 1e-2});
  StateGate gate;
  for (std::uint64_t step = 0; step < 30; ++step) {
    const at::Tensor input = test::random_tensor({16, 8}, step);
    for (const Model* model : {&ours, &theirs}) model->forward()(input).square().sum().backward();
    our_optimizer->step(gate);
    their_optimizer->step();
    for (const at::Tensor& parameter : once) parameter.mutable_grad().reset();
  }
  for (const std::string& name : test::names_of(ours)) {
    EXPECT_TRUE(
        test::tensor_named(ours, name).allclose(test::tensor_named(theirs, name), 1e-4, 1e-5))
        << name;
  }
}

// With a save in staging every parameter is stepped on its own; the bits are the same.
TEST(Optimizer, StepsTheSameWhileTheGateIsClosed) {
  for (const Kind& kind : kinds()) {
    const auto free = kind.make(test::some_parameters());
    const auto gated = kind.make(test::some_parameters());
    StateGate open;
    for (std::uint64_t step = 0; step < 40; ++step) {
      StorageTable table;
      optimizer_tree(*gated, table);
      auto storages = table.storages();
      std::vector<std::uint64_t> sizes;
      std::vector<std::vector<std::byte>> before;
      for (const CapturedStorage& storage : storages) {
        sizes.push_back(storage.bytes.size());
        before.emplace_back(storage.bytes.begin(), storage.bytes.end());
      }
      std::vector<std::byte> arena(PthLayout(sizes).storages_end());
      auto snapshot =
          std::make_shared<HostSnapshot>(storages, PthLayout(sizes), arena, Snapshot::CopyProbe());
      StateGate closed;
      closed.close_for(snapshot);  // no copier: only the gate itself copies
      const std::size_t without = step % 3 == 0 ? 2 : SIZE_MAX;
      test::set_gradients(free->parameters(), step, without);
      test::set_gradients(gated->parameters(), step, without);
      free->step(open);
      ASSERT_FALSE(closed.open());
      gated->step(closed);
      ASSERT_TRUE(test::bit_equal(test::whole_state(*free), test::whole_state(*gated)))
          << kind.name << ", step " << step;
      // What the gate let be overwritten had been copied: the arena holds the state before.
      snapshot->copy_unclaimed();
      for (std::size_t part = 0; part < before.size(); ++part) {
        const std::byte* const copied = arena.data() + snapshot->layout().data_offset(part);
        ASSERT_TRUE(std::equal(before[part].begin(), before[part].end(), copied))
            << kind.name << ", step " << step << ", part " << part;
      }
    }
  }
}

TEST(Optimizer, GroupsSurviveARoundTrip) {
  const auto group_after = [](const OptimizerFactory& from, const OptimizerFactory& to) {
    const auto source = from(test::some_parameters());
    const auto target = to(test::some_parameters());
    target->load_group(source->group());
    return std::pair(source->group(), target->group());
  };
  const auto [adam_written, adam_read] = group_after(adamw({.lr = 0.5,
                                                            .beta1 = 0.7,
                                                            .beta2 = 0.8,
                                                            .eps = 1e-3,
                                                            .weight_decay = 0.2,
                                                            .maximize = true}),
                                                     adamw());
  EXPECT_EQ(adam_written, adam_read);
  const auto [sgd_written, sgd_read] =
      group_after(sgd({.lr = 0.5, .momentum = 0.7, .dampening = 0.3, .weight_decay = 0.2}),
                  sgd({.momentum = 0.9}));
  EXPECT_EQ(sgd_written, sgd_read);
  const auto [nesterov_written, nesterov_read] = group_after(
      sgd({.momentum = 0.7, .nesterov = true, .maximize = true}), sgd({.momentum = 0.9}));
  EXPECT_EQ(nesterov_written, nesterov_read);
}

TEST(Optimizer, ContinuesExactlyFromALoadedState) {
  for (const Kind& kind : kinds()) {
    const auto straight = kind.make(test::some_parameters());
    StateGate gate;
    train(*straight, gate, 0, 7);
    const CheckpointFile file = saved(*straight);

    const auto resumed = kind.make(test::some_parameters());
    train(*resumed, gate, 50, 53);  // has a history of its own, which loading replaces
    {
      const at::NoGradGuard no_grad;
      for (std::size_t i = 0; i < straight->parameters().size(); ++i) {
        resumed->parameters()[i].copy_(straight->parameters()[i]);
      }
    }
    resumed->learning_rates()[0] = 0.7;
    load_optimizer_tree(*resumed, file, gate);
    EXPECT_TRUE(test::bit_equal(test::whole_state(*straight), test::whole_state(*resumed)));
    EXPECT_EQ(resumed->learning_rates()[0], 1e-2);
    train(*straight, gate, 7, 20);
    train(*resumed, gate, 7, 20);
    EXPECT_TRUE(test::bit_equal(test::whole_state(*straight), test::whole_state(*resumed)))
        << kind.name;
  }
}

TEST(Optimizer, LoadingForgetsWhatTheFileDoesNotHave) {
  for (const Kind& kind : kinds()) {
    StateGate gate;
    const auto fresh = kind.make(test::some_parameters());
    test::set_gradients(fresh->parameters(), 0, 2);
    fresh->step(gate);
    const auto used = kind.make(test::some_parameters());
    train(*used, gate, 1, 9);  // parameter 2 gets a state
    load_optimizer_tree(*used, saved(*fresh), gate);
    {
      const at::NoGradGuard no_grad;
      for (std::size_t i = 0; i < fresh->parameters().size(); ++i) {
        used->parameters()[i].copy_(fresh->parameters()[i]);
      }
    }
    train(*fresh, gate, 1, 5);
    train(*used, gate, 1, 5);
    EXPECT_TRUE(test::bit_equal(test::whole_state(*fresh), test::whole_state(*used))) << kind.name;
  }
}

std::string refusal(Optimizer& optimizer, const CheckpointFile& file) {
  StateGate gate;
  const auto before = test::whole_state(optimizer);
  const pickle::Value group = optimizer.group();
  std::string text = "loaded";
  try {
    load_optimizer_tree(optimizer, file, gate);
  } catch (const CheckpointError& error) {
    text = error.what();
  }
  EXPECT_TRUE(test::bit_equal(before, test::whole_state(optimizer))) << text;
  EXPECT_EQ(group, optimizer.group()) << text;
  return text;
}

TEST(Optimizer, RefusesAFileThatDoesNotFitAndStaysAsItWas) {
  StateGate gate;
  const auto target = adamw({.lr = 1e-2})(test::some_parameters());
  train(*target, gate, 0, 4);

  const auto momentum = sgd({.lr = 0.5, .momentum = 0.9})(test::some_parameters());
  train(*momentum, gate, 0, 4);
  EXPECT_THAT(refusal(*target, saved(*momentum)), HasSubstr("another kind of optimizer"));

  auto fewer = test::some_parameters();
  fewer.pop_back();
  EXPECT_THAT(refusal(*target, saved(*adamw({.lr = 0.5})(fewer))), HasSubstr("parameters"));

  // The last parameter differs, so that everything before it could have been written.
  auto other = test::some_parameters();
  other.back() = test::random_tensor({90, 80}, 1).set_requires_grad(true);
  const auto shaped = adamw({.lr = 0.5})(other);
  train(*shaped, gate, 20, 24);
  EXPECT_THAT(refusal(*target, saved(*shaped)), HasSubstr("[90, 80]"));

  const auto to_momentum = sgd({.lr = 1e-2, .momentum = 0.9})(test::some_parameters());
  train(*to_momentum, gate, 0, 4);
  EXPECT_THAT(refusal(*to_momentum, saved(*target)), HasSubstr("another kind of optimizer"));
}

// The parameters fit and a state does not: a number would fit everywhere by broadcasting.
TEST(Optimizer, RefusesStatesOfAnotherShape) {
  StateGate gate;
  const auto target = adamw({.lr = 1e-2})(test::some_parameters());
  train(*target, gate, 0, 4);
  for (const char* name : {"step", "exp_avg", "exp_avg_sq"}) {
    CheckpointFile file = saved(*target);
    pickle::Value& states = *file.root().find("optimizer")->find("state");
    const bool is_step = std::string(name) == "step";
    const pickle::Value replacement = *states.find(0)->find(is_step ? "exp_avg" : "step");
    states.find(4)->set(name, replacement);
    EXPECT_THAT(refusal(*target, file), HasSubstr(name));
  }
}

TEST(Optimizer, RefusesTheOtherKindInBothDirectionsWithoutTensors) {
  StateGate gate;
  // Plain SGD keeps no tensors, so the names of its group tell the kinds apart.
  const auto plain = sgd({.lr = 1e-2})(test::some_parameters());
  train(*plain, gate, 0, 2);
  const auto adam = adamw({.lr = 0.5})(test::some_parameters());
  train(*adam, gate, 0, 2);
  EXPECT_THAT(refusal(*plain, saved(*adam)), HasSubstr("another kind of optimizer"));
  EXPECT_THAT(refusal(*adam, saved(*plain)), HasSubstr("another kind of optimizer"));
}

// A file with more state than this run keeps, and the other way round.
TEST(Optimizer, RefusesAmsgradThatDiffers) {
  StateGate gate;
  const auto with = adamw({.amsgrad = true})(test::some_parameters());
  train(*with, gate, 0, 2);
  const auto without = adamw()(test::some_parameters());
  train(*without, gate, 0, 2);
  EXPECT_THAT(refusal(*with, saved(*without)), HasSubstr("max_exp_avg_sq"));
  EXPECT_THAT(refusal(*without, saved(*with)), HasSubstr("max_exp_avg_sq"));
}

}  // namespace
}  // namespace millrace
