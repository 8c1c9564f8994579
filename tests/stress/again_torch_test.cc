// As again_test.cc, with LibTorch: run after run in one process leaves nothing behind, neither in
// its allocator nor in what it keeps for each thread that ever trained.
#include <gtest/gtest.h>

#include "millrace/hooks/default_hooks.h"
#include "millrace/runtime/async/train_context.h"
#include "millrace/runtime/engine/runner.h"
#include "millrace/runtime/torch/single_device.h"
#include "tests/support/process_usage.h"
#include "tests/support/stress.h"
#include "tests/support/temp_dir.h"
#include "tests/torch/support/small_nets.h"

namespace millrace {
namespace {

constexpr std::int64_t kIters = 20;  // of one run

// Trains a net of 128 x 128 with AdamW, saves every fifth iteration, validates twice.
void train_once(const std::filesystem::path& work_dir) {
  RunOptions options;
  options.work_dir = work_dir;
  options.max_iters = kIters;
  options.val_interval = kIters / 2;
  options.seed = 1;
  options.log_console = false;
  Parts parts;
  parts.strategy = make_single_device(test::mixed_net({.dropout = 0.1}), adamw(), {.threads = 1});
  parts.train = loader(test::labelled_points(64), {.batch_size = 16, .shuffle = true});
  parts.val = loader(test::labelled_points(32), {.batch_size = 16});
  parts.metrics.push_back(std::make_unique<Accuracy>());
  parts.hooks = default_hooks(
      {.checkpoint = {
           .interval = 5, .by_epoch = false, .save_best = {"auto"}, .max_keep_ckpts = 2}});
  Runner runner(std::move(options), std::move(parts));
  TrainContext context;
  context.run(runner.train());
  ASSERT_EQ(runner.progress().iter, kIters);
}

TEST(AgainTorch, ANewRunnerEachTime) {
  const std::size_t runs = test::stress_count(30, 100);
  std::vector<test::ProcessUsage> usage;
  for (std::size_t i = 0; i < runs; ++i) {
    {
      const test::TempDir dir;
      train_once(dir.path() / "run");
    }
    usage.push_back(test::process_usage());
  }
  EXPECT_EQ(test::growth(usage), "");
  test::stress_report("again: " + std::to_string(runs) + " runs of " + std::to_string(kIters) +
                      " iterations with LibTorch; " + test::usage_text(usage.back()));
}

}  // namespace
}  // namespace millrace
