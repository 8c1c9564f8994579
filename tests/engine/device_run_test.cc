// Whole runs on an asynchronous device: every checkpoint equals the one that a blocking run on the
// host wrote, bit by bit, in seeded schedules of the device.
#include <gmock/gmock.h>

#include <atomic>
#include <cstdlib>
#include <map>

#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/hooks/runtime_info_hook.h"
#include "millrace/io/memory_storage.h"
#include "millrace/runtime/device/cpu_device.h"
#include "millrace/runtime/device/device_error.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/engine/message_hub.h"
#include "tests/support/fake_run.h"
#include "tests/support/images.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using State = std::vector<std::vector<std::byte>>;

constexpr std::int64_t kIters = 10;

struct Outcome {
  std::map<std::string, State> checkpoints;
  std::map<std::string, std::string> histories;  // of each checkpoint
  std::vector<double> losses, scores;
};

unsigned seeds() {
  const char* const given = std::getenv("MILLRACE_STRESS_SEEDS");
#ifdef __SANITIZE_THREAD__
  constexpr unsigned kDefault = 30;
#else
  constexpr unsigned kDefault = 200;
#endif
  return given != nullptr ? static_cast<unsigned>(std::atoi(given)) : kDefault;
}

std::vector<double> history(test::FakeRun& run, const char* name) {
  std::vector<double> values;
  const HistoryBuffer* const buffer = run.runner().hub().find_scalar(name);
  if (buffer == nullptr) return values;
  for (const auto& entry : buffer->newest(1000)) values.push_back(entry.value);
  return values;
}

// Validates every 4 iterations.
Outcome outcome(CpuStream* stream, StageMode mode, std::uint64_t budget = 0) {
  const test::TempDir dir;
  auto storage = std::make_unique<MemoryStorage>();
  const MemoryStorage* const files = storage.get();
  test::FakeStrategyOptions model;
  model.stream = stream;
  test::FakeRun run(dir.path() / "run", model);
  run.options.max_iters = kIters;
  run.options.checkpoint_memory_budget = budget;
  run.parts.storage = std::move(storage);
  CheckpointHookOptions options;
  options.by_epoch = false;
  options.interval = 2;
  options.mode = mode;
  run.parts.hooks.add(std::make_unique<CheckpointHook>(options));
  run.parts.hooks.add(std::make_unique<RuntimeInfoHook>());
  run.validate();
  run.options.val_interval = 4;
  run.train();
  Outcome outcome;
  for (const std::string& name : test::names_of(*files)) {
    if (!name.ends_with(".pth")) continue;
    outcome.checkpoints[name] = test::state_in(*files, name);
    outcome.histories[name] = *CheckpointFile::read(*files, name).section("hub");
  }
  outcome.losses = history(run, "train/loss");
  outcome.scores = history(run, "val/accuracy");
  return outcome;
}

TEST(DeviceRun, CheckpointsLossesAndScoresEqualThoseOfABlockingRunOnTheHost) {
  const Outcome expected = outcome(nullptr, StageMode::kBlocking);
  ASSERT_EQ(expected.checkpoints.size(), 5u);
  ASSERT_EQ(expected.losses.size(), 10u);
  ASSERT_EQ(expected.scores.size(), 3u);
  for (std::uint32_t seed = 1; seed <= seeds(); ++seed) {
    CpuDeviceOptions options;
    options.seed = seed;
    options.longest_delay = std::chrono::microseconds(seed % 4 * 40);
    CpuDevice device(options);
    const auto train = device.make_cpu_stream();
    const auto mode = static_cast<StageMode>(1 + seed % 3);
    const Outcome given = outcome(train.get(), mode);
    ASSERT_EQ(given.checkpoints, expected.checkpoints) << "seed " << seed;
    ASSERT_EQ(given.histories, expected.histories) << "seed " << seed;
    ASSERT_EQ(given.losses, expected.losses) << "seed " << seed;
    ASSERT_EQ(given.scores, expected.scores) << "seed " << seed;
  }
}

// The loader gathers into the pinned memory from which the batch goes to the device.
TEST(DeviceRun, ABatchIsNotCopiedOnTheHost) {
  const test::TempDir dir;
  CpuDevice device;
  const auto train = device.make_cpu_stream();
  test::FakeStrategyOptions model;
  model.stream = train.get();
  test::FakeRun run(dir.path() / "run", model);
  run.options.max_epochs = 3;
  run.validate();
  int there = 0;
  const auto count = [&](const Batch& batch, RunContext& context) {
    std::vector<std::size_t> sizes;
    for (const Batch::Field& field : batch.fields()) sizes.push_back(field.bytes.size());
    const auto room =
        context.strategy.batch_memory()->room(sizes);  // of this batch: it was not used
    ASSERT_EQ(room.size(), batch.fields().size());
    for (std::size_t f = 0; f < room.size(); ++f) {
      if (room[f] == batch.fields()[f].bytes.data()) ++there;
    }
  };
  run.parts.hooks.add(test::on_event<BeforeTrainIter>(
      [&](const BeforeTrainIter& e, RunContext& context) { count(e.batch, context); }));
  run.parts.hooks.add(test::on_event<BeforeValIter>(
      [&](const BeforeValIter& e, RunContext& context) { count(e.batch, context); }, "ValHook"));
  run.train();
  EXPECT_EQ(there, 2 * 3 * (4 + 2)) << "fields, epochs, batches";
}

TEST(DeviceRun, AnErrorOfTheMemoryForBatchesNamesTheStage) {
  struct Memory final : BatchMemory {
    std::span<std::byte* const> room(std::span<const std::size_t>) override {
      if (++asked == 3) throw DeviceError("pin", "cuda:0", 2, "out of memory", false);
      return {};
    }
    int asked = 0;
  } memory;
  const test::TempDir dir;
  test::FakeRun run(dir.path() / "run");
  run.options.max_iters = 5;
  run.strategy->memory = &memory;
  EXPECT_THAT([&] { run.train(); }, ::testing::ThrowsMessage<DeviceError>(::testing::AllOf(
                                        ::testing::HasSubstr("loading a batch after iteration 2"),
                                        ::testing::HasSubstr("out of memory"))));
}

TEST(DeviceRun, ALostDeviceEndsTheRunWithItsErrorAndKeepsWhatIsDurable) {
  const test::TempDir dir;
  auto storage = std::make_unique<MemoryStorage>();
  const MemoryStorage* const files = storage.get();
  std::atomic<bool> lost{false};
  CpuDeviceOptions device_options;
  device_options.probe = [&](std::string_view) {
    if (lost) throw std::runtime_error("the device fell off the bus");
  };
  CpuDevice device(device_options);
  const auto train = device.make_cpu_stream();
  test::FakeStrategyOptions model;
  model.stream = train.get();
  test::FakeRun run(dir.path() / "run", model);
  run.options.max_iters = 20;
  run.parts.storage = std::move(storage);
  CheckpointHookOptions options;
  options.by_epoch = false;
  options.interval = 1;
  run.parts.hooks.add(std::make_unique<CheckpointHook>(options));
  run.parts.hooks.add(
      test::on_event<CheckpointCommitted>([&](const CheckpointCommitted& e, RunContext&) {
        if (e.row.iter >= 3) lost = true;
      }));
  try {
    run.train();
    FAIL() << "the run ended well";
  } catch (const std::exception& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("the device fell off the bus"));
  }
  EXPECT_THAT(test::names_of(*files), ::testing::Contains("iter_3.pth"));
  EXPECT_FALSE(test::state_in(*files, "iter_3.pth").empty());
}

}  // namespace
}  // namespace millrace
