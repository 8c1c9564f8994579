#include "millrace/hooks/runtime_info_hook.h"

#include <gmock/gmock.h>

#include "millrace/hooks/iter_timer_hook.h"
#include "millrace/hooks/param_scheduler_hook.h"
#include "millrace/runtime/engine/message_hub.h"
#include "tests/support/fake_run.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;

TEST(RuntimeInfoHook, WritesFactsWhereTheReferenceDoes) {
  const test::TempDir dir;
  test::FakeRun run(dir.path() / "run");
  run.options.max_epochs = 2;
  run.options.config_text = "lr: 1";
  run.validate();
  run.parts.hooks.add(std::make_unique<RuntimeInfoHook>());
  std::vector<std::string> seen;
  run.parts.hooks.add(std::make_unique<test::TestHook>([&](Subscriptions& on, RunContext& r) {
    const auto note = [&seen, &r](const char* where) {
      const auto text = [&](const char* name) {
        const pickle::Value* value = r.hub.find_info(name);
        return value == nullptr ? "-" : pickle::describe(*value);
      };
      seen.push_back(std::string(where) + " " + text("loop_stage") + " e" + text("epoch") + " i" +
                     text("iter"));
    };
    on.every<AfterTrainEpoch>([note](const AfterTrainEpoch&) { note("epoch"); });
    on.every<AfterValEpoch>([note](const AfterValEpoch&) { note("val"); });
    on.every<AfterRun>([note](const AfterRun&) { note("end"); });
  }));
  run.train();
  ASSERT_EQ(seen.size(), 5u);
  EXPECT_THAT(seen[0], ::testing::MatchesRegex("epoch .*train.* e0 i3"));
  EXPECT_THAT(seen[1], ::testing::MatchesRegex("val .*val.* e0 i3"));
  EXPECT_THAT(seen[2], ::testing::MatchesRegex("epoch .*train.* e1 i7"));
  EXPECT_EQ(seen[4], "end - e1 i7");
  MessageHub& hub = run.runner().hub();
  EXPECT_EQ(hub.find_info("seed")->as_int(), 1);
  EXPECT_EQ(hub.find_info("max_epochs")->as_int(), 2);
  EXPECT_EQ(hub.find_info("max_iters")->as_int(), 8);
  EXPECT_EQ(*hub.find_info("cfg")->as_string(), "lr: 1");
  EXPECT_NE(hub.find_info("experiment_name"), nullptr);
  EXPECT_NE(hub.find_info("millrace_version"), nullptr);
  EXPECT_EQ(hub.find_scalar("train/loss")->size(), 8u);
  EXPECT_EQ(hub.find_scalar("val/accuracy")->size(), 2u);
}

std::vector<double> losses(test::FakeRun& run) {
  std::vector<double> values;
  for (const auto& entry : run.runner().hub().find_scalar("train/loss")->newest(1000)) {
    values.push_back(entry.value);
  }
  return values;
}

// On a device the loss of a step is there some steps later.
TEST(RuntimeInfoHook, LateOutputsAreWrittenInTheOrderOfTheirIterations) {
  std::vector<double> prompt;
  for (const std::uint32_t lateness : {0, 1, 3, 63, 64}) {
    const test::TempDir dir;
    test::FakeRun run(dir.path() / "run", {.loss_lateness = lateness});
    run.options.max_iters = 100;
    run.parts.hooks.add(std::make_unique<RuntimeInfoHook>());
    run.train();
    if (lateness == 0) prompt = losses(run);
    ASSERT_EQ(prompt.size(), 100u);
    const bool lost = lateness >= ScalarSource::kKept;
    const std::vector<double> arrived(prompt.begin(), prompt.end() - (lost ? 100 : lateness));
    EXPECT_EQ(losses(run), arrived) << lateness;
  }
}

// The rate is noted before the step that uses it; schedules step after it.
TEST(RuntimeInfoHook, TheRateIsTheOneTheStepUses) {
  const test::TempDir dir;
  test::FakeRun run(dir.path() / "run");
  run.options.max_iters = 4;
  run.parts.param_schedulers.push_back(
      linear_lr({.start_factor = 0.25, .span = {.end = 4, .by_epoch = false}}));
  run.parts.hooks.add(std::make_unique<RuntimeInfoHook>());
  run.parts.hooks.add(std::make_unique<ParamSchedulerHook>());
  std::vector<double> used;
  run.strategy->on_step = [&] { used.push_back(run.strategy->learning_rates()[0]); };
  run.train();
  std::vector<double> noted;
  for (const auto& entry : run.runner().hub().find_scalar("train/lr")->newest(10)) {
    noted.push_back(entry.value);
  }
  EXPECT_EQ(noted, used);
  EXPECT_THAT(used, ElementsAre(0.03125, 0.0625, 0.09375, 0.125));
}

TEST(IterTimerHook, OneTimeForEveryIterationAndNothingLeftAtTheEnd) {
  const test::TempDir dir;
  test::FakeRun run(dir.path() / "run");
  run.options.max_epochs = 2;
  run.validate();
  run.parts.hooks.add(std::make_unique<IterTimerHook>());
  std::vector<double> eta;
  run.parts.hooks.add(test::on_event<AfterTrainIter>([&](const AfterTrainIter&, RunContext& r) {
    eta.push_back(r.hub.find_info("eta")->as_double().value());
  }));
  run.train();
  MessageHub& hub = run.runner().hub();
  for (const char* name : {"train/time", "train/data_time"}) {
    EXPECT_EQ(hub.find_scalar(name)->size(), 8u) << name;
    EXPECT_GE(hub.find_scalar(name)->min(), 0) << name;
  }
  EXPECT_EQ(hub.find_scalar("val/time")->size(), 4u);
  EXPECT_GE(hub.find_scalar("train/time")->mean(), hub.find_scalar("train/data_time")->mean());
  ASSERT_EQ(eta.size(), 8u);
  EXPECT_GT(eta[0], 0);
  EXPECT_EQ(eta[7], 0);
}

}  // namespace
}  // namespace millrace
