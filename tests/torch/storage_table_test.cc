// The watch over captured storages, and memory that is captured once.
#include "millrace/runtime/torch/storage_table.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/torch/state_capture.h"
#include "millrace/runtime/torch/state_dict.h"
#include "tests/torch/support/closed_gate.h"
#include "tests/torch/support/named_tensors.h"
#include "tests/torch/support/small_nets.h"
#include "tests/torch/support/stepping.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

// The sentences of all captured storages.
std::vector<std::string> moved(const CapturedState& state) {
  std::vector<std::string> sentences;
  for (std::size_t i = 0; i < state.storages.size(); ++i) {
    std::string sentence = state.watch->moved(i);
    if (!sentence.empty()) sentences.push_back(std::move(sentence));
  }
  return sentences;
}

struct Scene {
  Model model{test::mixed_net({.width = 8})};
  std::unique_ptr<Optimizer> optimizer = adamw()(test::parameters_of(model));
  StateCapture states{model, *optimizer};
  at::Tensor named(const char* name) const { return test::tensor_named(model, name); }
};

TEST(CaptureWatch, SeesAnInPlaceWrite) {
  Scene scene;
  const at::Tensor weight = scene.named("scores.weight");
  const std::uint32_t version = weight._version();
  const CapturedState state = scene.states.capture(true);
  EXPECT_THAT(moved(state), IsEmpty());
  {
    const at::NoGradGuard no_grad;
    weight.add_(1);
    weight.mul_(2);
  }
  EXPECT_THAT(
      moved(state),
      testing::ElementsAre("scores.weight was written without passing the gate (version " +
                           std::to_string(version) + " -> " + std::to_string(version + 2) + ")"));
  EXPECT_THAT(moved(scene.states.capture(true)), IsEmpty());  // the next capture starts from here
}

TEST(CaptureWatch, SeesAWriteToAStateOfTheOptimizer) {
  Scene scene;
  const CapturedState state = scene.states.capture(true);
  scene.optimizer->state(1)[1].zero_();
  EXPECT_THAT(moved(state),
              testing::ElementsAre(StartsWith("exp_avg of hidden.weight was written")));
}

TEST(CaptureWatch, SeesAWriteThroughAView) {
  Scene scene;
  const CapturedState state = scene.states.capture(true);
  {
    const at::NoGradGuard no_grad;
    scene.named("scores.weight").select(0, 1).zero_();
  }
  EXPECT_THAT(moved(state), testing::ElementsAre(StartsWith("scores.weight was written")));
}

TEST(CaptureWatch, SeesOtherMemory) {
  const at::NoGradGuard no_grad;
  for (const char* how : {"set_data", "resize_"}) {
    Scene scene;
    const CapturedState state = scene.states.capture(true);
    at::Tensor weight = scene.named("frozen.weight");
    if (std::string(how) == "set_data") {
      weight.set_data(weight.detach().clone());
    } else {
      weight.resize_({400, 400});
    }
    EXPECT_THAT(moved(state),
                testing::ElementsAre("frozen.weight got other memory without passing the gate"))
        << how;
  }
}

// Asked whenever a storage is about to be copied: before then a step behind the gate has not moved
// its counters, also where parameters live in one storage.
TEST(CaptureWatch, TakesNoOffenceAtAStepBehindTheGate) {
  const at::Tensor shared = test::random_tensor({200'000}, 1);
  std::vector<at::Tensor> parameters = test::some_parameters();
  parameters.push_back(shared.narrow(0, 0, 90'000).detach().set_requires_grad(true));
  parameters.push_back(shared.narrow(0, 90'000, 110'000).detach().set_requires_grad(true));
  for (const OptimizerFactory& make : {adamw(), sgd({.momentum = 0.9})}) {
    const auto optimizer = make(parameters);
    StateGate open;
    test::set_gradients(optimizer->parameters(), 0);
    optimizer->step(open);
    StorageTable table;
    optimizer_tree(*optimizer, table);
    const auto watch = table.watch();
    std::vector<std::string> sentences;
    test::ClosedGate gate(table.storages(),
                          [&](std::size_t part) { sentences.push_back(watch->moved(part)); });
    test::set_gradients(optimizer->parameters(), 1);
    optimizer->step(gate.gate());
    EXPECT_TRUE(gate.saved_what_was_captured());
    EXPECT_GE(sentences.size(), table.storages().size());  // slices of large ones are asked for
    EXPECT_THAT(sentences, testing::Each(""));
    std::size_t written = 0;  // now that all is copied, the counters have moved
    for (std::size_t i = 0; i < table.storages().size(); ++i) written += !watch->moved(i).empty();
    EXPECT_GE(written, table.storages().size() - 1);  // all but the frozen one
  }
}

TEST(StorageTable, TwoStoragesOverTheSameMemoryAreOne) {
  std::vector<float> memory(100);
  const auto over = [&](std::size_t first, std::size_t count) {
    return at::from_blob(memory.data() + first, {static_cast<std::int64_t>(count)});
  };
  StorageTable table;
  table.add(over(10, 50), Mutation::kBehindGate, "a");
  const auto same = pickle::as_tensor(table.add(over(10, 50), Mutation::kBehindGate, "b")).value();
  const auto inner = pickle::as_tensor(table.add(over(20, 5), Mutation::kAnyTime, "c")).value();
  EXPECT_EQ(same.storage_key, "0");
  EXPECT_EQ(inner.storage_key, "0");
  EXPECT_EQ(inner.storage_numel, 50);
  EXPECT_EQ(inner.offset, 10);
  ASSERT_EQ(table.storages().size(), 1u);
  EXPECT_EQ(table.storages()[0].mutation, Mutation::kAnyTime);
  table.add(over(60, 5), Mutation::kBehindGate, "behind it");
  table.add(over(0, 10), Mutation::kBehindGate, "before it");
  EXPECT_EQ(table.storages().size(), 3u);
  for (const auto& [first, count] : {std::pair(55, 10), std::pair(5, 10), std::pair(5, 60)}) {
    try {
      table.add(over(first, count), Mutation::kBehindGate, "d");
      ADD_FAILURE() << first;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("d overlaps the memory of"));
    }
  }
}

TEST(StorageTable, RefusesTwoTypesInOneStorage) {
  const at::Tensor whole = at::arange(8, at::kFloat);
  StorageTable table;
  table.add(whole, Mutation::kBehindGate, "floats");
  try {
    table.add(whole.view(at::kInt), Mutation::kBehindGate, "ints");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("ints and floats view the same memory"));
  }
}

}  // namespace
}  // namespace millrace
