// Training with LibTorch on a GPU: what no fake of the runtime can stand for (cuda_steps.h). Every
// test skips, with the reason, where there is none. `make gpu-test` runs it.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <gmock/gmock.h>

#include <map>

#include "millrace/hooks/default_hooks.h"
#include "millrace/io/local_storage.h"
#include "millrace/io/pth_reader.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/message_hub.h"
#include "millrace/runtime/engine/run.h"
#include "millrace/runtime/engine/run_context.h"
#include "millrace/runtime/torch/single_device.h"
#include "millrace/runtime/torch/step_device.h"
#include "millrace/runtime/torch/tensor_bytes.h"
#include "tests/support/images.h"
#include "tests/support/temp_dir.h"
#include "tests/torch/support/gpu_sync.h"
#include "tests/torch/support/small_nets.h"

namespace millrace {
namespace {

using Bytes = std::vector<std::byte>;

// The captured storages, read back the blocking way when the save begins.
class Copies final : public Hook {
 public:
  std::string_view name() const override { return "Copies"; }
  Priority priority() const override { return Priority::kLowest; }
  void attach(RunContext& run) override { run_ = &run; }
  void subscribe(Subscriptions& on) override {
    on.every<BeforeSaveCheckpoint>([this](const BeforeSaveCheckpoint&) { copy(); });
    on.every<CheckpointCaptured>(
        [this](const CheckpointCaptured& e) { of_file[e.row.name] = std::move(latest_); });
  }
  std::map<std::string, std::vector<Bytes>> of_file;

 private:
  void copy() {
    latest_.clear();
    const test::AllowSync allowed;
    for (const CapturedStorage& storage : run_->strategy.capture(true).storages) {
      latest_.push_back(storage.on_device ? test::read_device(storage.bytes)
                                          : Bytes(storage.bytes.begin(), storage.bytes.end()));
    }
  }
  RunContext* run_ = nullptr;
  std::vector<Bytes> latest_;
};

struct RunSetup {
  std::string device = "cuda";
  StageMode mode = StageMode::kLazy;
  OptimizerFactory optimizer = adamw({.lr = 1e-2});
  std::int64_t epochs = 2;
  std::uint64_t memory_budget = 0;
  bool resume = false;
};

class Gpu : public ::testing::Test {
 protected:
  void SetUp() override {
    try {
      check_device("cuda");
    } catch (const ConfigError& error) {
      GTEST_SKIP() << error.what();
    }
    at::globalContext().setDeterministicAlgorithms(true, false);
  }
  void TearDown() override { at::globalContext().setDeterministicAlgorithms(false, false); }

  // A run of BatchNorm, tied, frozen and viewed parameters that saves every 4 iterations.
  std::unique_ptr<Runner> run(const RunSetup& setup, std::unique_ptr<Hook> extra = nullptr) {
    set_randomness(5);
    Parts parts;
    parts.strategy = make_single_device(test::mixed_net(), setup.optimizer,
                                        {.threads = 1, .device = setup.device});
    parts.train = loader(test::labelled_points(160), {.batch_size = 16, .shuffle = true});
    parts.val = loader(test::labelled_points(50), {.batch_size = 16});
    parts.metrics.push_back(std::make_unique<Accuracy>());
    parts.hooks =
        default_hooks({.checkpoint = {.interval = 4, .by_epoch = false, .mode = setup.mode}});
    if (extra) parts.hooks.add(std::move(extra));
    RunOptions options;
    options.work_dir = folder_.path();
    options.max_epochs = setup.epochs;
    options.seed = 5;
    options.log_console = false;
    options.checkpoint_memory_budget = setup.memory_budget;
    if (setup.resume) options.resume = Resume::automatic();
    auto runner = std::make_unique<Runner>(std::move(options), std::move(parts));
    RunCommand command;
    command.handle_signals = false;
    run_or_throw(*runner, command);
    return runner;
  }
  std::vector<Bytes> storages_of(const std::string& file) const {
    const LocalStorage storage(folder_.path());
    const auto opened = PthReader::open(storage.open(file));
    EXPECT_TRUE(opened && opened.value().verify()) << file;
    std::vector<Bytes> storages;
    for (std::size_t i = 0; i < opened.value().storage_keys().size(); ++i) {
      const std::string key = std::to_string(i);
      storages.emplace_back(opened.value().storage_size(key).value());
      EXPECT_TRUE(opened.value().read_storage(key, storages.back()));
    }
    return storages;
  }
  static std::vector<double> history(Runner& runner, const char* name) {
    std::vector<double> values;
    for (const auto& entry : runner.hub().find_scalar(name)->newest(1000)) {
      values.push_back(entry.value);
    }
    return values;
  }

  test::TempDir folder_;
};

TEST_F(Gpu, EveryCheckpointHoldsTheStateAtCapture) {
  const OptimizerFactory optimizers[] = {adamw({.lr = 1e-2}), sgd({.lr = 1e-2, .momentum = 0.9})};
  for (const OptimizerFactory& optimizer : optimizers) {
    for (const StageMode mode : {StageMode::kLazy, StageMode::kEager, StageMode::kBlocking}) {
      SCOPED_TRACE(stage_mode_name(mode));
      auto hook = std::make_unique<Copies>();
      Copies& copies = *hook;
      run({.mode = mode, .optimizer = optimizer}, std::move(hook));
      ASSERT_EQ(copies.of_file.size(), 5u);
      for (const auto& [file, expected] : copies.of_file) {
        EXPECT_TRUE(storages_of(file) == expected) << file;
      }
    }
  }
}

TEST_F(Gpu, LazyEagerAndBlockingRunsWriteTheSameFiles) {
  run({.mode = StageMode::kBlocking});
  const auto blocking = storages_of("iter_20.pth");
  for (const StageMode mode : {StageMode::kLazy, StageMode::kEager}) {
    run({.mode = mode});
    EXPECT_TRUE(storages_of("iter_20.pth") == blocking) << stage_mode_name(mode);
  }
}

TEST_F(Gpu, AResumedRunGoesOnBitByBit) {
  run({.epochs = 2});
  const auto whole = storages_of("iter_20.pth");
  std::filesystem::remove_all(folder_.path());
  run({.epochs = 1});
  run({.epochs = 2, .resume = true});
  EXPECT_TRUE(storages_of("iter_20.pth") == whole);
}

TEST_F(Gpu, LossesAndScoresAreThoseOfTheHostButForRounding) {
  const auto host = run({.device = "cpu", .epochs = 1});
  const auto expected = history(*host, "train/loss");
  const auto gpu = run({.epochs = 1});
  const auto losses = history(*gpu, "train/loss");
  ASSERT_EQ(losses.size(), expected.size()) << "none was lost";
  for (std::size_t i = 0; i < losses.size(); ++i) {
    EXPECT_NEAR(losses[i], expected[i], 1e-3) << i;
  }
  EXPECT_NEAR(history(*gpu, "val/accuracy").back(), history(*host, "val/accuracy").back(), 0.05);
}

// LibTorch throws where it would wait for the device.
TEST_F(Gpu, NothingWaitsForTheDeviceInSteadyState) {
  class Strict final : public Hook {
   public:
    std::string_view name() const override { return "Strict"; }
    void subscribe(Subscriptions& on) override {
      on.every<BeforeTrainIter>([this](const BeforeTrainIter& e) {
        if (e.at.iter == 5) forbidden_ = std::make_unique<test::ForbidSync>();
      });
      on.every<AfterTrain>([this](const AfterTrain&) { forbidden_.reset(); });
    }

   private:
    std::unique_ptr<test::ForbidSync> forbidden_;
  };
  EXPECT_NO_THROW(run({}, std::make_unique<Strict>()));
}

TEST_F(Gpu, MemoryIsInTheLogLineAndPeaksAreCounted) {
  const auto runner = run({.epochs = 1});
  EXPECT_GT(runner->strategy().peak_memory_mib(), 0);
}

}  // namespace
}  // namespace millrace
