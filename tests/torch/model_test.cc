#include "millrace/runtime/torch/model.h"

#include <gmock/gmock.h>

#include <set>

#include "millrace/runtime/async/error.h"
#include "tests/torch/support/named_tensors.h"
#include "tests/torch/support/small_nets.h"

namespace millrace {
namespace {

using test::names_of;
using ::testing::ElementsAre;

// What Python's state_dict() of the same modules says: parameters, buffers, then children.
TEST(Model, NamesAreInPythonsOrder) {
  EXPECT_THAT(
      names_of(Model(test::nested_net())),
      ElementsAre("gain", "bias", "table", "count", "first.weight", "first.bias", "body.0.weight",
                  "body.0.bias", "body.2.weight", "body.2.bias", "body.2.running_mean",
                  "body.2.running_var", "body.2.num_batches_tracked"));
  EXPECT_THAT(
      names_of(Model(test::mixed_net())),
      ElementsAre("scale", "hidden.weight", "hidden.bias", "norm.weight", "norm.bias",
                  "norm.running_mean", "norm.running_var", "norm.num_batches_tracked", "mid.weight",
                  "frozen.weight", "tied.weight", "scores.weight", "scores.bias"));
}

TEST(Model, KnowsBuffers) {
  std::set<std::string> buffers;
  for (const Model::Entry& entry : Model(test::nested_net()).entries()) {
    if (entry.buffer) buffers.insert(entry.name);
  }
  EXPECT_THAT(buffers, ElementsAre("body.2.num_batches_tracked", "body.2.running_mean",
                                   "body.2.running_var", "count", "table"));
}

TEST(Model, VersionsArePythons) {
  std::vector<std::pair<std::string, std::int64_t>> versions;
  for (const Model::Version& version : Model(test::nested_net()).versions()) {
    versions.emplace_back(version.module, version.version);
  }
  using Pair = std::pair<std::string, std::int64_t>;
  EXPECT_THAT(versions, ElementsAre(Pair("", 1), Pair("first", 1), Pair("body", 1),
                                    Pair("body.0", 1), Pair("body.1", 1), Pair("body.2", 2)));
}

TEST(Model, EntriesAreTheModulesOwnTensors) {
  const Model model(test::nested_net());
  const at::Tensor first = test::tensor_named(model, "gain");
  const at::Tensor again = test::tensor_named(model, "gain");
  EXPECT_EQ(first.unsafeGetTensorImpl(), again.unsafeGetTensorImpl());
}

TEST(Model, SwitchesBetweenTrainingAndEvaluation) {
  const ModelFunctions functions = test::mixed_net({.width = 4, .dropout = 0.5});
  Model model(functions);
  const at::Tensor counter = test::tensor_named(model, "norm.num_batches_tracked");
  const at::Tensor x = test::tensor_named(model, "hidden.weight").detach();  // 4 x 8
  model.set_training(true);
  model.forward()(x);
  EXPECT_EQ(counter.item<std::int64_t>(), 1);
  model.set_training(false);
  EXPECT_TRUE(model.forward()(x).equal(model.forward()(x)));
  EXPECT_EQ(counter.item<std::int64_t>(), 1);
  model.set_training(true);
  model.forward()(x);
  EXPECT_EQ(counter.item<std::int64_t>(), 2);
}

TEST(Model, NeedsAModule) { EXPECT_THROW(Model(ModelFunctions{}), ConfigError); }

}  // namespace
}  // namespace millrace
