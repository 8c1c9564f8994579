// What hooks may do to a checkpoint before it is saved and after it was loaded.
#include "millrace/runtime/engine/checkpoint_content.h"

#include <gmock/gmock.h>

#include <cstring>
#include <numeric>

#include "millrace/hooks/default_hooks.h"
#include "millrace/io/local_storage.h"
#include "millrace/io/pickle_walk.h"
#include "millrace/io/pth_reader.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "tests/support/fake_run.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A hook's tensor.
struct Floats {
  explicit Floats(std::size_t count, float first = 0)
      : values(std::make_shared<std::vector<float>>(count)),
        sizes{static_cast<std::int64_t>(count)} {
    std::iota(values->begin(), values->end(), first);
  }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(*values)); }
  TensorView view() const { return {DType::kFloat32, sizes, bytes()}; }

  std::shared_ptr<std::vector<float>> values;
  std::vector<std::int64_t> sizes;
};

// A captured state of four storages, "0" to "3", and what the checkpointer does with it.
struct Save {
  Save() : state(strategy.capture(true)) { open(); }
  void open() {
    content.begin(state);
    content.set("meta", pickle::Value::dict());
    content.share("state_dict", state.state_dict);
    content.share("optimizer", state.optimizer);
  }
  pickle::Value add(const Floats& floats, Mutation mutation = Mutation::kBehindGate) {
    return content.tensor(floats.view(), mutation, floats.values);
  }
  // What the file calls the storage of a leaf.
  std::string name_of(const pickle::Value& leaf) const {
    const std::string key = pickle::as_tensor(leaf).value().storage_key;
    const auto renamed = content.storage_names().find(key);
    return renamed != content.storage_names().end() ? renamed->second : key;
  }
  std::span<const std::byte> bytes_of(const pickle::Value& leaf) const {
    return state.storages.at(std::stoul(name_of(leaf))).bytes;
  }

  test::FakeStrategy strategy{{.floats = 100}};
  CapturedState state;
  CheckpointContent content;
};

const pickle::Value& weight(const CheckpointContent& content, const char* name) {
  return *content.find("state_dict")->find(name);
}

TEST(CheckpointContent, WithoutHooksNothingIsCopiedOrRenamed) {
  Save save;
  const auto handles = save.state.handles;
  save.content.detach();
  const CheckpointContent& content = save.content;
  EXPECT_EQ(pickle::node_of(*content.find("state_dict")), pickle::node_of(save.state.state_dict));
  EXPECT_EQ(pickle::node_of(*content.find("optimizer")), pickle::node_of(save.state.optimizer));
  EXPECT_THAT(content.storage_names(), IsEmpty());
  EXPECT_EQ(save.state.storages.size(), 6u);
  EXPECT_EQ(save.state.handles, handles);
}

TEST(CheckpointContent, AHookThatAsksForATreeGetsACopy) {
  for (const bool by_key : {false, true}) {
    Save save;
    const pickle::Value before = pickle::deep_copy(save.state.state_dict);
    pickle::Value& tree =
        by_key ? *save.content.find("state_dict") : *save.content.root().find("state_dict");
    tree.set("note", "changed");
    tree.erase("embed.weight");
    save.content.detach();
    EXPECT_EQ(save.state.state_dict, before);
    const CheckpointContent& content = save.content;
    EXPECT_EQ(*content.find("state_dict")->find("note"), pickle::Value("changed"));
  }
}

TEST(CheckpointContent, WhatAHookChangesAfterwardsDoesNotReachTheFile) {
  Save save;
  pickle::Value mine = pickle::Value::dict();
  mine.set("list", pickle::Value::list({1, 2}));
  save.content.set("mine", mine);
  pickle::Value weights = *save.content.find("state_dict");
  save.content.detach();
  mine.find("list")->append(3);
  mine.set("more", 1);
  weights.set("later", 1);
  const CheckpointContent& content = save.content;
  EXPECT_EQ(content.find("mine")->find("more"), nullptr);
  EXPECT_EQ(content.find("mine")->find("list")->as_sequence()->size(), 2u);
  EXPECT_EQ(content.find("state_dict")->find("later"), nullptr);
}

TEST(CheckpointContent, AddedTensorsFollowTheCapturedOnes) {
  Save save;
  const std::vector<CapturedStorage> captured = save.state.storages;
  const Floats a(10), b(20);
  const pickle::Value leaf_a = save.add(a, Mutation::kAnyTime);
  const pickle::Value leaf_b = save.add(b);
  pickle::Value tree = pickle::Value::ordered_dict();
  tree.set("a", leaf_a);
  tree.set("b", leaf_b);
  save.content.set("ema_state_dict", tree);
  save.content.detach();
  ASSERT_EQ(save.state.storages.size(), captured.size() + 2);
  for (std::size_t i = 0; i < captured.size(); ++i) {
    EXPECT_EQ(save.state.storages[i].bytes.data(), captured[i].bytes.data());
  }
  EXPECT_EQ(save.bytes_of(leaf_a).data(), a.bytes().data());
  EXPECT_EQ(save.bytes_of(leaf_b).size(), b.bytes().size());
  EXPECT_EQ(save.state.storages[6].mutation, Mutation::kAnyTime);
  EXPECT_EQ(save.state.storages[7].mutation, Mutation::kBehindGate);
  EXPECT_EQ(a.values.use_count(), 2);  // the handles hold it
  save.state.handles.reset();
  EXPECT_EQ(a.values.use_count(), 1);
}

TEST(CheckpointContent, LeavesDescribeTheTensor) {
  Save save;
  const Floats floats(24);
  const std::vector<std::int64_t> sizes = {2, 0, 3};
  const TensorView empty{DType::kInt64, sizes, {}};
  const auto none = pickle::as_tensor(save.content.tensor(empty, {}, nullptr)).value();
  EXPECT_THAT(none.sizes, ElementsAre(2, 0, 3));
  EXPECT_EQ(none.dtype, DType::kInt64);
  const std::vector<std::int64_t> cube = {2, 3, 4};
  const TensorView view{DType::kFloat32, cube, floats.bytes()};
  const auto leaf =
      pickle::as_tensor(save.content.tensor(view, Mutation::kBehindGate, floats.values)).value();
  EXPECT_THAT(leaf.strides, ElementsAre(12, 4, 1));
  EXPECT_EQ(leaf.storage_numel, 24);
  const TensorView wrong{DType::kFloat64, cube, floats.bytes()};
  EXPECT_THROW(save.content.tensor(wrong, Mutation::kBehindGate, floats.values), Error);
}

TEST(CheckpointContent, CapturedMemoryIsNotWrittenTwice) {
  Save save;
  const auto body = save.strategy.body();
  const auto bytes = std::as_bytes(body);
  const std::vector<std::int64_t> all = {100}, ten = {2, 5};
  const TensorView whole{DType::kFloat32, all, bytes};
  const TensorView inner{DType::kFloat32, ten, bytes.subspan(160, 40)};
  pickle::Value list = pickle::Value::list();
  list.append(save.content.tensor(whole, Mutation::kBehindGate, nullptr));
  EXPECT_EQ(save.state.storages[2].mutation, Mutation::kBehindGate);
  list.append(save.content.tensor(inner, Mutation::kAnyTime, nullptr));
  const Floats floats(50);
  list.append(save.add(floats));
  const std::vector<std::int64_t> twenty = {20};
  const TensorView part{DType::kFloat32, twenty, floats.bytes().subspan(40, 80)};
  list.append(save.content.tensor(part, Mutation::kBehindGate, floats.values));
  save.content.set("mine", list);
  save.content.detach();

  EXPECT_EQ(save.state.storages.size(), 7u);
  const auto& leaves = *list.as_sequence();
  EXPECT_EQ(save.name_of(leaves[0]), save.name_of(weight(save.content, "body.weight")));
  EXPECT_EQ(save.name_of(leaves[1]), save.name_of(leaves[0]));
  EXPECT_EQ(save.state.storages[2].mutation, Mutation::kAnyTime);
  const auto second = pickle::as_tensor(leaves[1]).value();
  EXPECT_EQ(second.offset, 40);
  EXPECT_EQ(second.storage_numel, 100);
  EXPECT_EQ(save.name_of(leaves[3]), save.name_of(leaves[2]));
  EXPECT_EQ(pickle::as_tensor(leaves[3]).value().offset, 10);
}

// What cannot share a storage in the file is copied at once, so no later write reaches it.
TEST(CheckpointContent, MemoryThatCannotBeSharedIsCopiedAtOnce) {
  struct Case {
    DType dtype;
    std::size_t start;  // byte of the other tensor's memory
  };
  // Of another type; between two elements; only half of it captured.
  for (const Case& c : {Case{DType::kInt32, 0}, {DType::kFloat32, 2}, {DType::kFloat32, 180}}) {
    SCOPED_TRACE(c.start);
    Save save;
    const Floats mine(60);
    const std::vector<std::int64_t> ten = {10}, fifty = {50};
    const TensorView first{DType::kFloat32, fifty, mine.bytes().first(200)};
    pickle::Value list = pickle::Value::list();
    list.append(save.content.tensor(first, Mutation::kBehindGate, mine.values));
    const TensorView other{c.dtype, ten, mine.bytes().subspan(c.start, 40)};
    const std::vector<std::byte> before(other.bytes.begin(), other.bytes.end());
    list.append(save.content.tensor(other, Mutation::kBehindGate, mine.values));
    save.content.set("mine", list);
    save.content.detach();
    std::fill(mine.values->begin(), mine.values->end(), -1.0F);
    const auto saved = save.bytes_of((*list.as_sequence())[1]);
    EXPECT_NE(saved.data(), other.bytes.data());
    EXPECT_TRUE(std::equal(saved.begin(), saved.end(), before.begin(), before.end()));
    EXPECT_EQ(save.bytes_of((*list.as_sequence())[0]).data(), mine.bytes().data());
  }
}

TEST(CheckpointContent, WhatNothingRefersToIsDropped) {
  for (const char* how : {"remove", "replace", "erase inside"}) {
    SCOPED_TRACE(how);
    Save save;
    const Floats added(10), unused(5);
    const pickle::Value leaf = save.add(added);
    save.add(unused);
    save.content.set("mine", leaf);
    if (std::string(how) == "remove") {
      EXPECT_TRUE(save.content.remove("optimizer"));
      EXPECT_FALSE(save.content.remove("optimizer"));
    } else if (std::string(how) == "replace") {
      save.content.set("optimizer", pickle::Value());
    } else {
      save.content.root().find("optimizer")->set("state", pickle::Value::dict());
    }
    const auto live = std::as_bytes(std::span<const float>(save.strategy.body()));
    save.content.detach();
    // embed (tied with head), body, frozen, running mean; and the hook's.
    EXPECT_EQ(save.state.storages.size(), 5u);
    const CheckpointContent& content = save.content;
    EXPECT_EQ(save.bytes_of(weight(content, "body.weight")).data(), live.data());
    EXPECT_EQ(save.name_of(weight(content, "embed.weight")),
              save.name_of(weight(content, "head.weight")));
    EXPECT_EQ(save.bytes_of(*content.find("mine")).data(), added.bytes().data());
  }
}

TEST(CheckpointContent, ALeafOfAnotherCheckpointIsRefused) {
  Save first;
  const Floats floats(10);
  const pickle::Value old = first.add(floats);
  for (const bool nested : {false, true}) {
    Save second;
    second.content.set("mine", nested ? pickle::Value::list({old}) : old);
    try {
      second.content.detach();
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("belongs to another checkpoint"));
    }
  }
  Save third;  // a captured leaf that does not fit the storage of its name
  pickle::TensorRef large;
  large.storage_key = "1";
  large.storage_numel = 101;
  large.sizes = {1};
  large.strides = {1};
  third.content.set("mine", pickle::make_tensor(large));
  EXPECT_THROW(third.content.detach(), Error);
}

class FakeWatch final : public CaptureWatch {
 public:
  std::string moved(std::size_t i) const override { return i == 2 ? "storage 2 moved" : ""; }
};

TEST(CheckpointContent, TheWatchFollowsTheStorages) {
  Save save;
  save.state.watch = std::make_shared<FakeWatch>();  // 2 is body.weight
  const Floats floats(10);
  std::string fault;
  const pickle::Value leaf = save.content.tensor(floats.view(), Mutation::kBehindGate,
                                                 floats.values, [&fault] { return fault; });
  save.content.set("mine", leaf);
  save.content.remove("optimizer");
  save.content.detach();
  const auto moved = [&](const pickle::Value& value) {
    return save.state.watch->moved(std::stoul(save.name_of(value)));
  };
  EXPECT_NE(save.name_of(weight(save.content, "body.weight")), "2");
  EXPECT_EQ(moved(weight(save.content, "body.weight")), "storage 2 moved");
  EXPECT_EQ(moved(weight(save.content, "frozen.weight")), "");
  EXPECT_EQ(moved(leaf), "");
  fault = "the average moved";
  EXPECT_EQ(moved(leaf), "the average moved");
}

TEST(CheckpointContent, OnlyTheRightEventHasTensorsOrAFile) {
  CheckpointContent empty;
  EXPECT_THROW(empty.tensor(Floats(1).view(), Mutation::kBehindGate, nullptr), Error);
  EXPECT_THROW(empty.bytes_of(pickle::Value(1)), Error);
  EXPECT_THROW(empty.file(), Error);
  Save save;
  save.content.detach();
  EXPECT_THROW(save.add(Floats(1)), Error);
}

// ---- through a run ----

std::vector<float> floats_of(std::span<const std::byte> bytes) {
  std::vector<float> floats(bytes.size() / sizeof(float));
  std::memcpy(floats.data(), bytes.data(), bytes.size());
  return floats;
}

// Adds an average of its own and leaves the optimizer out; reads the average back.
class AveragesHook final : public Hook {
 public:
  explicit AveragesHook(std::vector<float>& loaded) : loaded_(loaded) {}
  std::string_view name() const override { return "AveragesHook"; }
  void subscribe(Subscriptions& on) override {
    on.every<BeforeSaveCheckpoint>([this](const BeforeSaveCheckpoint& event) {
      event.content.set("average",
                        event.content.tensor(mine_.view(), Mutation::kAnyTime, mine_.values));
      event.content.find("state_dict")->erase("frozen.weight");
    });
    on.every<AfterTrainIter>([this](const AfterTrainIter&) { (*mine_.values)[0] += 1; });
    on.every<AfterLoadCheckpoint>([this](const AfterLoadCheckpoint& event) {
      loaded_ = floats_of(event.content.bytes_of(*event.content.find("average")));
      event.content.remove("average");
      event.content.find("state_dict")->set("frozen.weight", *event.content.find("body"));
    });
  }

 private:
  Floats mine_{3000, 1};
  std::vector<float>& loaded_;
};

TEST(CheckpointContent, AHooksTensorsAreInTheFileAndComeBack) {
  const test::TempDir dir;
  std::vector<float> loaded;
  {
    test::FakeRun run(dir.path());
    run.options.max_epochs = 2;
    run.parts.hooks = default_hooks();
    run.parts.hooks.add(std::make_unique<AveragesHook>(loaded));
    run.parts.hooks.add(test::on_event<BeforeSaveCheckpoint>(
        [](const BeforeSaveCheckpoint& event, RunContext&) {
          event.content.set("body", *event.content.find("state_dict")->find("body.weight"));
        },
        "Body"));
    run.train();
  }
  const LocalStorage storage(dir.path());
  const CheckpointFile file = CheckpointFile::read(storage, "epoch_1.pth");
  const auto leaf = pickle::as_tensor(*file.root().find("average")).value();
  const auto average = floats_of(file.storage(leaf));
  EXPECT_EQ(average.size(), 3000u);
  EXPECT_EQ(average[0], 5.0F);  // after four iterations; it went on changing
  EXPECT_EQ(average[2999], 3000.0F);
  EXPECT_EQ(file.state_dict().find("frozen.weight"), nullptr);
  // embed, body, their momenta, running mean and the average: frozen.weight left no bytes behind.
  const auto reader = PthReader::open(storage.open("epoch_1.pth"));
  ASSERT_TRUE(reader);
  EXPECT_EQ(reader.value().storage_keys().size(), 6u);
  EXPECT_TRUE(reader.value().verify());

  test::FakeRun resumed(dir.path());
  resumed.options.max_epochs = 3;
  resumed.options.resume = Resume::from(dir.path() / "epoch_1.pth");
  resumed.parts.hooks.add(std::make_unique<AveragesHook>(loaded));
  resumed.train();
  EXPECT_EQ(loaded, average);
}

}  // namespace
}  // namespace millrace
