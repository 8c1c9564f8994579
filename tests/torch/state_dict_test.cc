#include "millrace/runtime/torch/state_dict.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <cstring>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/torch/tensor_bytes.h"
#include "tests/torch/support/named_tensors.h"
#include "tests/torch/support/small_nets.h"

namespace millrace {
namespace {

using test::tensor_named;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

pickle::TensorRef leaf_of(const pickle::Value& tree, const std::string& name) {
  const pickle::Value* value = tree.find(name);
  if (value == nullptr) throw std::out_of_range(name);
  return pickle::as_tensor(*value).value();
}

std::vector<std::string> keys_of(const pickle::Value& tree) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : *tree.as_mapping()) keys.push_back(*key.as_string());
  return keys;
}

const CapturedStorage& storage_of(const StorageTable& table, const pickle::TensorRef& leaf,
                                  std::vector<CapturedStorage>& hold) {
  hold = table.storages();
  return hold.at(std::stoul(leaf.storage_key));
}

TEST(StateDict, TreeHasPythonsNamesAndVersions) {
  const Model model(test::nested_net());
  StorageTable storages;
  const pickle::Value tree = model_tree(model, storages);
  EXPECT_EQ(keys_of(tree), test::names_of(model));

  const pickle::Value* metadata = pickle::attribute(tree, "_metadata");
  ASSERT_NE(metadata, nullptr);
  EXPECT_THAT(keys_of(*metadata), ElementsAre("", "first", "body", "body.0", "body.1", "body.2"));
  EXPECT_EQ(metadata->find("body.2")->find("version")->as_int(), 2);
  EXPECT_EQ(metadata->find("body.0")->find("version")->as_int(), 1);
}

TEST(StateDict, LeavesDescribeTheTensors) {
  const Model model(test::nested_net());
  StorageTable storages;
  const pickle::Value tree = model_tree(model, storages);
  std::vector<CapturedStorage> hold;
  for (const Model::Entry& entry : model.entries()) {
    const pickle::TensorRef leaf = leaf_of(tree, entry.name);
    EXPECT_EQ(leaf.dtype, dtype_of(*entry.tensor)) << entry.name;
    EXPECT_EQ(at::IntArrayRef(leaf.sizes), entry.tensor->sizes()) << entry.name;
    EXPECT_EQ(at::IntArrayRef(leaf.strides), entry.tensor->strides()) << entry.name;
    const CapturedStorage& storage = storage_of(storages, leaf, hold);
    EXPECT_EQ(storage.bytes.data() + static_cast<std::size_t>(leaf.offset) * dtype_size(leaf.dtype),
              static_cast<const std::byte*>(entry.tensor->const_data_ptr()))
        << entry.name;
  }
  const pickle::TensorRef count = leaf_of(tree, "count");
  EXPECT_EQ(count.dtype, DType::kInt64);
  EXPECT_THAT(count.sizes, IsEmpty());
  EXPECT_EQ(count.numel(), 1);
  EXPECT_EQ(leaf_of(tree, "table").dtype, DType::kInt64);
}

TEST(StateDict, TiedParametersShareAStorage) {
  const Model model(test::mixed_net());
  StorageTable storages;
  const pickle::Value tree = model_tree(model, storages);
  EXPECT_EQ(leaf_of(tree, "tied.weight").storage_key, leaf_of(tree, "mid.weight").storage_key);
  EXPECT_NE(leaf_of(tree, "frozen.weight").storage_key, leaf_of(tree, "mid.weight").storage_key);
  EXPECT_EQ(storages.storages().size(), model.entries().size() - 1);
}

TEST(StateDict, AViewNamesItsWholeStorage) {
  const Model model(test::mixed_net({.width = 8}));
  StorageTable storages;
  const pickle::Value tree = model_tree(model, storages);
  const pickle::TensorRef leaf = leaf_of(tree, "scale");
  EXPECT_EQ(leaf.storage_numel, 16);
  EXPECT_EQ(leaf.offset, 4);
  EXPECT_THAT(leaf.sizes, ElementsAre(8));
  std::vector<CapturedStorage> hold;
  EXPECT_EQ(storage_of(storages, leaf, hold).bytes.size(), 16 * sizeof(float));
}

TEST(StateDict, OnlyBuffersMayChangeAtAnyTime) {
  const Model model(test::mixed_net());
  StorageTable storages;
  const pickle::Value tree = model_tree(model, storages);
  std::vector<CapturedStorage> hold;
  for (const Model::Entry& entry : model.entries()) {
    const Mutation expected = entry.buffer ? Mutation::kAnyTime : Mutation::kBehindGate;
    EXPECT_EQ(storage_of(storages, leaf_of(tree, entry.name), hold).mutation, expected)
        << entry.name;
  }
}

TEST(StateDict, TheMoreCautiousMutationWins) {
  const at::Tensor whole = at::arange(10, at::kFloat);
  for (const bool gate_first : {true, false}) {
    StorageTable storages;
    storages.add(whole, gate_first ? Mutation::kBehindGate : Mutation::kAnyTime);
    storages.add(whole.narrow(0, 2, 3), gate_first ? Mutation::kAnyTime : Mutation::kBehindGate);
    ASSERT_EQ(storages.storages().size(), 1u);
    EXPECT_EQ(storages.storages()[0].mutation, Mutation::kAnyTime);
  }
}

TEST(StateDict, StridesAreKept) {
  const at::Tensor whole = at::zeros({4, 6});
  StorageTable storages;
  const auto leaf = pickle::as_tensor(storages.add(whole.t().slice(0, 1, 6, 2), {})).value();
  EXPECT_THAT(leaf.sizes, ElementsAre(3, 4));
  EXPECT_THAT(leaf.strides, ElementsAre(2, 6));
  EXPECT_EQ(leaf.offset, 1);
  EXPECT_EQ(leaf.storage_numel, 24);
}

TEST(StateDict, EmptyTensorsHaveAnEmptyStorage) {
  StorageTable storages;
  const auto leaf =
      pickle::as_tensor(storages.add(at::empty({0, 3}), Mutation::kBehindGate)).value();
  EXPECT_THAT(leaf.sizes, ElementsAre(0, 3));
  EXPECT_EQ(storages.storages().at(0).bytes.size(), 0u);
}

TEST(StateDict, HandlesKeepTheMemory) {
  StorageTable storages;
  const std::byte* address = nullptr;
  {
    const at::Tensor tensor = at::arange(1000, at::kLong);
    storages.add(tensor, Mutation::kBehindGate);
    address = storage_bytes(tensor).data();
  }
  const std::shared_ptr<const void> handles = storages.handles();
  std::int64_t value = 0;
  std::memcpy(&value, address + 999 * sizeof value, sizeof value);
  EXPECT_EQ(value, 999);
}

TEST(StateDict, TheOptimizersStoragesComeInItsOrder) {
  const Model model(test::mixed_net());
  const auto optimizer = adamw()(test::parameters_of(model));
  StorageTable storages;
  const pickle::Value tree = optimizer_tree(*optimizer, storages);
  const auto all = storages.storages();
  // A parameter, then its state; the step counters share one storage.
  std::size_t next = 0;
  std::vector<const std::byte*> seen;
  const auto expect_next = [&](const at::Tensor& tensor) {
    const std::byte* const data = storage_bytes(tensor).data();
    if (std::find(seen.begin(), seen.end(), data) != seen.end()) return;
    seen.push_back(data);
    ASSERT_LT(next, all.size());
    EXPECT_EQ(all[next++].bytes.data(), data);
  };
  for (std::size_t i = 0; i < optimizer->parameters().size(); ++i) {
    expect_next(optimizer->parameters()[i]);
    for (const at::Tensor& tensor : optimizer->state(i)) expect_next(tensor);
  }
  EXPECT_EQ(next, all.size());
  // Adding the model afterwards adds its buffers alone.
  model_tree(model, storages);
  EXPECT_EQ(storages.storages().size(), all.size() + 3);
}

TEST(StateDict, OptimizerTreeIsPythons) {
  const Model model(test::mixed_net());
  const auto optimizer = adamw({.lr = 0.25, .amsgrad = true})(test::parameters_of(model));
  StorageTable storages;
  const pickle::Value tree = optimizer_tree(*optimizer, storages);
  EXPECT_THAT(keys_of(tree), ElementsAre("state", "param_groups"));
  const pickle::Value& states = *tree.find("state");
  const pickle::Value& group = tree.find("param_groups")->as_sequence()->at(0);
  // Ten parameters in the state_dict, of which one is tied; index 6 is frozen and has no state.
  EXPECT_EQ(*group.find("params"), pickle::Value::list({0, 1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(states.as_mapping()->size(), 8u);
  EXPECT_EQ(states.find(6), nullptr);
  EXPECT_THAT(keys_of(*states.find(5)),
              ElementsAre("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"));
  EXPECT_THAT(leaf_of(*states.find(5), "step").sizes, IsEmpty());
  EXPECT_THAT(leaf_of(*states.find(5), "exp_avg").sizes, ElementsAre(128, 128));
  EXPECT_THAT(keys_of(group), ElementsAre("lr", "betas", "eps", "weight_decay", "amsgrad",
                                          "maximize", "foreach", "capturable", "differentiable",
                                          "fused", "decoupled_weight_decay", "params"));
  EXPECT_EQ(group.find("lr")->as_double(), 0.25);
  EXPECT_EQ(group.find("amsgrad")->as_bool(), true);
}

// Ten thousand tensors: every one has its own storage and entry, each of them once.
TEST(StateDict, TenThousandTensors) {
  constexpr std::int64_t kCount = 10'000;
  const Model model(test::many_tensors(kCount));
  StorageTable storages;
  const pickle::Value tree = model_tree(model, storages);
  ASSERT_EQ(storages.storages().size(), static_cast<std::size_t>(kCount));
  ASSERT_EQ(tree.as_mapping()->size(), static_cast<std::size_t>(kCount));
  const auto all = storages.storages();
  std::size_t position = 0;
  for (const auto& [key, value] : *tree.as_mapping()) {
    ASSERT_EQ(*key.as_string(), "p" + std::to_string(position));
    ASSERT_EQ(pickle::as_tensor(value).value().storage_key, std::to_string(position));
    float number = -1;
    std::memcpy(&number, all[position].bytes.data(), sizeof number);
    ASSERT_EQ(number, static_cast<float>(position));
    ++position;
  }
}

TEST(MatchModel, SaysWhatIsMissingUnexpectedAndOfAnotherShape) {
  const Model narrow(test::mixed_net({.width = 8}));
  const Model wide(test::mixed_net({.width = 16}));
  StorageTable storages;
  const pickle::Value tree = model_tree(narrow, storages);
  EXPECT_TRUE(match_model(narrow, tree).exact());

  const ModelMatch other = match_model(wide, tree);
  EXPECT_FALSE(other.exact());
  EXPECT_THAT(other.mismatched, testing::Contains("mid.weight: file [8, 8], model [16, 16]"));
  EXPECT_EQ(other.pairs.size(), 2u);  // scores.bias and the 0-dimensional counter

  const ModelMatch stranger = match_model(Model(test::nested_net()), tree);
  EXPECT_THAT(stranger.unexpected, testing::Contains("mid.weight"));
  EXPECT_THAT(stranger.missing, testing::Contains("gain"));
  EXPECT_THAT(stranger.pairs, IsEmpty());
}

TEST(MatchModel, DropsThePrefixOfDataParallelWrappers) {
  const Model model(test::mixed_net({.width = 8}));
  StorageTable storages;
  const pickle::Value tree = model_tree(model, storages);
  pickle::Value wrapped = pickle::Value::ordered_dict();
  for (const auto& [key, value] : *tree.as_mapping()) {
    wrapped.set("module." + *key.as_string(), value);
  }
  EXPECT_TRUE(match_model(model, wrapped).exact());
}

TEST(MatchModel, OldFilesMayLackTheBatchCounter) {
  const Model model(test::mixed_net({.width = 8}));
  StorageTable storages;
  pickle::Value tree = model_tree(model, storages);
  tree.erase("norm.num_batches_tracked");
  EXPECT_TRUE(match_model(model, tree).exact());
  tree.erase("norm.running_var");
  EXPECT_THAT(match_model(model, tree).missing, ElementsAre("norm.running_var"));
}

}  // namespace
}  // namespace millrace
