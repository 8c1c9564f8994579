// Hooks with tensors of their own: an average of the weights (EMA) that is saved with the model,
// stands in for it in validation, and comes back from the file, with lazy saves in flight all
// along.
#include "millrace/runtime/torch/content_tensor.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "millrace/hooks/default_hooks.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/engine/run.h"
#include "millrace/runtime/engine/run_context.h"
#include "millrace/runtime/staging/state_gate.h"
#include "millrace/runtime/torch/single_device.h"
#include "millrace/runtime/torch/tensor_bytes.h"
#include "tests/support/temp_dir.h"
#include "tests/torch/support/gated_storage.h"
#include "tests/torch/support/named_tensors.h"
#include "tests/torch/support/small_nets.h"
#include "tests/torch/support/stepping.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Tensors = std::map<std::string, at::Tensor>;

// Keeps the copier out until the test lets it in.
class Copier {
 public:
  void operator()(std::size_t) {
    std::unique_lock lock(mutex_);
    if (std::this_thread::get_id() == train) return;
    may_copy_.wait(lock, [this] { return open_; });
  }
  void set(bool open) {
    {
      const std::scoped_lock lock(mutex_);
      open_ = open;
    }
    may_copy_.notify_all();
  }
  std::thread::id train;

 private:
  std::mutex mutex_;
  std::condition_variable may_copy_;
  bool open_ = true;
};

class EmaHook final : public Hook {
 public:
  EmaHook(const ModelFunctions& net, Copier& copier) : model_(net), copier_(copier) {
    for (const Model::Entry& entry : model_.entries()) {
      if (!entry.buffer) averages_[entry.name] = entry.tensor->detach().clone();
    }
  }
  std::string_view name() const override { return "EmaHook"; }
  void attach(RunContext& run) override { run_ = &run; }

  void subscribe(Subscriptions& on) override {
    on.every<AfterTrainIter>([this](const AfterTrainIter&) { update(); });
    on.every<BeforeSaveCheckpoint>([this](const BeforeSaveCheckpoint& event) {
      pickle::Value averages = pickle::Value::ordered_dict();
      for (const auto& [name, average] : averages_) {
        averages.set(name, add_tensor(event.content, average, Mutation::kBehindGate, name));
      }
      event.content.set("ema_state_dict", averages);
      captured.push_back(everything());
      copier_.train = std::this_thread::get_id();
      copier_.set(false);  // nothing large is copied before validation begins
    });
    on.every<BeforeValEpoch>([this](const BeforeValEpoch&) {
      swaps_beside_a_save += run_->gate.open() ? 0 : 1;
      copier_.set(true);
      swap();
      swapped_ = everything();
    });
    on.every<AfterValEpoch>([this](const AfterValEpoch&) { swap(); });
    on.every<AfterLoadCheckpoint>([this](const AfterLoadCheckpoint& event) {
      for (auto& [name, average] : averages_) {
        const pickle::Value* leaf = event.content.find("ema_state_dict")->find(name);
        average.copy_(tensor_of(event.content, *leaf));
      }
      loaded = averages();
    });
  }

  // Copies of all weights, statistics and averages.
  Tensors everything() const {
    Tensors all;
    for (const Model::Entry& entry : model_.entries()) {
      all["state_dict " + entry.name] = entry.tensor->detach().clone();
    }
    for (const auto& [name, average] : averages()) all["ema_state_dict " + name] = average;
    return all;
  }
  Tensors averages() const {
    Tensors all;
    for (const auto& [name, average] : averages_) all[name] = average.clone();
    return all;
  }

  std::vector<Tensors> captured;  // by save
  int swaps_beside_a_save = 0;
  Tensors loaded;

 private:
  void writable(const at::Tensor& tensor) { run_->gate.writable(storage_bytes(tensor)); }
  void update() {
    const at::NoGradGuard no_grad;
    for (auto& [name, average] : averages_) {
      writable(average);
      average.lerp_(test::tensor_named(model_, name), 0.25);
    }
  }
  void swap() {
    const at::NoGradGuard no_grad;
    for (auto& [name, average] : averages_) {
      const at::Tensor weight = test::tensor_named(model_, name);
      const at::Tensor value = weight.clone();
      writable(weight);
      weight.copy_(average);
      writable(average);
      average.copy_(value);
    }
  }

  const Model model_;
  Copier& copier_;
  Tensors averages_, swapped_;
  RunContext* run_ = nullptr;
};

struct EmaRun {
  void train(std::int64_t epochs, Resume resume = {}) {
    Parts parts;
    const ModelFunctions net = test::mixed_net();
    parts.strategy = make_single_device(net, adamw({.lr = 1e-2}), {.threads = 1});
    parts.train = loader(test::labelled_points(80), {.batch_size = 16, .shuffle = true});
    parts.val = loader(test::labelled_points(32), {.batch_size = 16});
    parts.metrics.push_back(std::make_unique<Accuracy>());
    parts.hooks.add(std::make_unique<CheckpointHook>(
        CheckpointHookOptions{.interval = 1, .mode = StageMode::kLazy}));
    auto owned = std::make_unique<EmaHook>(net, copier);
    EmaHook& hook = *owned;
    parts.hooks.add(std::move(owned));
    parts.storage = std::make_unique<test::GatedStorage>(objects, std::function<void()>());
    parts.copy_probe = [this](std::size_t part) { copier(part); };
    RunOptions options;
    options.work_dir = folder.path();
    options.max_epochs = epochs;
    options.seed = 5;
    options.log_console = false;
    options.resume = std::move(resume);
    Runner runner(std::move(options), std::move(parts));
    RunCommand command;
    command.handle_signals = false;
    run_or_throw(runner, command);
    captured = std::move(hook.captured);
    swaps_beside_a_save = hook.swaps_beside_a_save;
    loaded = std::move(hook.loaded);
  }

  Copier copier;
  test::TempDir folder;
  std::shared_ptr<MemoryStorage> objects = std::make_shared<MemoryStorage>();
  std::vector<Tensors> captured;
  int swaps_beside_a_save = 0;
  Tensors loaded;
};

TEST(ContentTensor, EveryFileHoldsWeightsAndAveragesOfItsCapture) {
  EmaRun run;
  run.train(4);
  EXPECT_EQ(run.swaps_beside_a_save, 4);
  ASSERT_EQ(run.captured.size(), 4u);
  for (std::size_t save = 0; save < 4; ++save) {
    SCOPED_TRACE(save);
    const auto file =
        CheckpointFile::read(*run.objects, "epoch_" + std::to_string(save + 1) + ".pth");
    for (const char* tree : {"state_dict", "ema_state_dict"}) {
      ASSERT_NE(file.root().find(tree), nullptr);
      for (const auto& [key, leaf] : *file.root().find(tree)->as_mapping()) {
        const at::Tensor saved = tensor_over(file, pickle::as_tensor(leaf).value());
        EXPECT_TRUE(saved.equal(run.captured[save].at(tree + (" " + *key.as_string()))))
            << tree << " " << *key.as_string();
      }
    }
    const std::string weight = "mid.weight";
    EXPECT_FALSE(run.captured[save]
                     .at("state_dict " + weight)
                     .equal(run.captured[save].at("ema_state_dict " + weight)));
  }
}

TEST(ContentTensor, AveragesComeBackFromTheFile) {
  EmaRun run;
  run.train(2);
  const std::vector<Tensors> captured = std::move(run.captured);
  run.train(3, Resume::automatic());
  ASSERT_FALSE(run.loaded.empty());
  for (const auto& [name, average] : run.loaded) {
    EXPECT_TRUE(average.equal(captured[1].at("ema_state_dict " + name))) << name;
  }
}

TEST(ContentTensor, AViewOfCapturedMemoryIsNotWrittenTwice) {
  CheckpointContent content;
  CapturedState state;
  content.begin(state);
  const at::Tensor whole = test::random_tensor({6, 8}, 1);
  const auto leaf_of = [&](const at::Tensor& tensor) {
    return pickle::as_tensor(add_tensor(content, tensor, Mutation::kBehindGate)).value();
  };
  pickle::Value all = pickle::Value::list();
  for (const at::Tensor& tensor : {whole, whole.narrow(0, 2, 3), whole.t()}) {
    all.append(add_tensor(content, tensor, Mutation::kBehindGate));
  }
  content.set("all", all);
  const auto row = leaf_of(whole.narrow(0, 2, 3));
  EXPECT_EQ(row.offset, 16);
  EXPECT_EQ(row.storage_numel, 48);
  content.detach();
  // The transposed one is copied, because the leaf of a hook is row-major.
  ASSERT_EQ(state.storages.size(), 2u);
  EXPECT_EQ(state.storages[0].bytes.data(), storage_bytes(whole).data());
  EXPECT_EQ(state.storages[1].bytes.size(), storage_bytes(whole).size());
}

TEST(ContentTensor, TheWatchSeesWhoDidNotAskTheGate) {
  const at::Tensor mine = at::zeros({10});
  CheckpointContent content;
  CapturedState state;
  content.begin(state);
  content.set("mine", add_tensor(content, mine, Mutation::kBehindGate, "my average"));
  content.detach();
  EXPECT_THAT(state.watch->moved(0), IsEmpty());
  mine.add_(1);
  EXPECT_THAT(state.watch->moved(0), HasSubstr("my average was written without passing the gate"));
}

TEST(ContentTensor, RefusesWhatIsNoTensorOfTheFile) {
  test::TempDir folder;
  EmaRun run;
  run.train(1);
  CheckpointFile file = CheckpointFile::read(*run.objects, "epoch_1.pth");
  const CheckpointContent content(file);
  EXPECT_THROW(tensor_of(content, *content.find("meta")), CheckpointError);
  pickle::TensorRef stranger;
  stranger.storage_key = "no such storage";
  EXPECT_THROW(tensor_of(content, pickle::make_tensor(stranger)), CheckpointError);
}

}  // namespace
}  // namespace millrace
