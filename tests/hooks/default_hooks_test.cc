#include "millrace/hooks/default_hooks.h"

#include <gmock/gmock.h>

#include "tests/support/alloc_counter.h"
#include "tests/support/fake_run.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

TEST(DefaultHooks, AreTheReferencesSixInItsOrder) {
  EXPECT_EQ(default_hooks().table(),
            "Hooks will be executed in the following order:\n"
            "(VERY_HIGH   ) RuntimeInfoHook\n"
            "(NORMAL      ) IterTimerHook\n"
            "(NORMAL      ) DistSamplerSeedHook\n"
            "(BELOW_NORMAL) LoggerHook\n"
            "(LOW         ) ParamSchedulerHook\n"
            "(VERY_LOW    ) CheckpointHook");
}

TEST(DefaultHooks, OptionsReachTheirHooks) {
  DefaultHookOptions options;
  options.checkpoint.interval = 5;
  const HookList hooks = default_hooks(options);
  const auto& hook = dynamic_cast<const CheckpointHook&>(*hooks.find("CheckpointHook"));
  EXPECT_FALSE(hook.due(4));
  EXPECT_TRUE(hook.due(5));
  EXPECT_TRUE(dynamic_cast<const CheckpointHook&>(*default_hooks().find("CheckpointHook")).due(1));
}

// A gate on counts: what an iteration costs the heap once it runs. Only the histories still grow,
// by doubling.
TEST(DefaultHooks, AnIterationAllocatesNothing) {
  const test::TempDir dir;
  test::FakeRun run(dir.path() / "run", {.floats = 16});
  run.options.max_iters = 3000;
  DefaultHookOptions options;
  options.logger.interval = 10'000;
  options.logger.interval_exp_name = 10'000;
  options.checkpoint.interval = -1;
  options.checkpoint.by_epoch = false;
  options.checkpoint.save_last = false;
  run.parts.hooks = default_hooks(options);
  run.parts.param_schedulers.push_back(linear_lr({.span = {.by_epoch = false}}));
  std::vector<std::uint64_t> counts;
  counts.reserve(4000);
  run.strategy->on_forward = [&] { counts.push_back(test::thread_allocations()); };
  run.train();
  ASSERT_EQ(counts.size(), 3000u);
  EXPECT_EQ(counts[2000] - counts[1100], 0u);
  EXPECT_EQ(counts[2900] - counts[2000], 4u) << "lr, data_time, time and loss, after 2048 entries";
}

}  // namespace
}  // namespace millrace
