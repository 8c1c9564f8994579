// Isolated hooks in a run: training goes on without them.
#include <gmock/gmock.h>

#include "millrace/events/checkpoint_events.h"
#include "millrace/events/hook_error.h"
#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/hooks/default_hooks.h"
#include "millrace/runtime/async/error.h"
#include "tests/support/fake_run.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Fails in every way there is.
class Plot final : public Hook {
 public:
  std::string_view name() const override { return "Plot"; }
  Isolation isolation() const override { return Isolation::disable_after(3); }
  void subscribe(Subscriptions& on) override {
    on.every<AfterTrainIter>([this](const AfterTrainIter&) {
      ++calls;
      throw Error("no display");
    });
  }
  int calls = 0;
};

struct IsolatedHooks : ::testing::Test {
  IsolatedHooks() : run(dir.path() / "run") { run.options.max_epochs = 2; }
  template <class E>
  void add_throwing(std::string name, HookOptions options) {
    run.parts.hooks.add(std::make_unique<test::TestHook>(
                            [](Subscriptions& on, RunContext&) {
                              on.every<E>([](const E&) { throw Error("broken"); });
                            },
                            std::move(name)),
                        options);
  }
  test::TempDir dir;
  test::FakeRun run;
};

TEST_F(IsolatedHooks, TrainingGoesOnAndTheHookIsDisabledAfterThree) {
  auto& plot = static_cast<Plot&>(run.parts.hooks.add(std::make_unique<Plot>()));
  std::int64_t iters = 0;
  run.parts.hooks.add(
      test::on_event<AfterTrainIter>([&](const AfterTrainIter&, RunContext&) { ++iters; }));
  run.train();
  EXPECT_EQ(iters, 8);
  EXPECT_EQ(plot.calls, 3);
  const auto errors = run.runner().hook_errors();
  ASSERT_THAT(errors, SizeIs(1));
  EXPECT_EQ(errors[0].hook, "Plot");
  EXPECT_EQ(errors[0].errors, 3u);
  EXPECT_TRUE(errors[0].disabled);
  EXPECT_EQ(errors[0].last_error, "after_train_iter in Plot: no display");
  EXPECT_THAT(run.log->with("after_train_iter in Plot: no display (isolated hook"), SizeIs(3));
  EXPECT_THAT(run.log->with("The isolated hook 'Plot' is disabled after 3 errors; the last: "
                            "after_train_iter in Plot: no display"),
              SizeIs(1));
  EXPECT_THAT(run.log->with("Errors of isolated hooks:\nPlot: 3, disabled; the last: "), SizeIs(1));
}

TEST_F(IsolatedHooks, TheUserDecidesInBothDirections) {
  run.parts.hooks.add(std::make_unique<Plot>(), {.isolation = Isolation::none()});
  add_throwing<BeforeTrain>("Other", {.isolation = Isolation::disable_after(1)});
  try {
    run.train();
    FAIL();
  } catch (const HookError& error) {
    EXPECT_STREQ(error.what(), "after_train_iter in Plot: no display");
  }
  EXPECT_EQ(run.runner().hook_errors().at(0).hook, "Other");
  EXPECT_TRUE(run.runner().hook_errors().at(0).disabled);
}

TEST_F(IsolatedHooks, StopAndTheEndOfTheRunReachEveryoneElse) {
  run.parts.hooks = default_hooks();
  add_throwing<StopRequested>("Stops", {.priority = 0, .isolation = Isolation::disable_after()});
  add_throwing<AfterRun>("Ends", {.priority = 0, .isolation = Isolation::disable_after()});
  std::vector<std::string> seen;
  run.parts.hooks.add(std::make_unique<test::TestHook>([&](Subscriptions& on, RunContext& context) {
    on.every<AfterTrainIter>([&](const AfterTrainIter& e) {
      if (e.at.iter == 1) context.request_stop("test");
    });
    on.every<StopRequested>([&](const StopRequested&) { seen.push_back("stop"); });
    on.every<CheckpointCommitted>(
        [&](const CheckpointCommitted& e) { seen.push_back(e.row.name); });
    on.every<AfterRun>([&](const AfterRun&) { seen.push_back("end"); });
  }));
  run.train();
  EXPECT_THAT(seen, ElementsAre("stop", "iter_2.pth", "end"));
  EXPECT_THAT(run.runner().hook_errors(), SizeIs(2));
}

TEST_F(IsolatedHooks, AwaitedAndBackgroundErrorsDoNotFailTheRun) {
  run.parts.hooks.add(
      std::make_unique<test::TestHook>([](Subscriptions& on, RunContext&) {
        on.awaited<AfterTrainIter>([](const AfterTrainIter&) -> Task<> { throw Error("awaited"); });
        on.background<AfterTrainIter>({},
                                      [](const AfterTrainIter::Owned&) { throw Error("late"); });
      }),
      {.isolation = Isolation::disable_after(0)});
  run.train();
  EXPECT_EQ(run.runner().hook_errors().at(0).errors, 16u);
  EXPECT_FALSE(run.runner().hook_errors().at(0).disabled);
  EXPECT_THAT(run.log->with("training goes on; error"), SizeIs(16));
}

TEST_F(IsolatedHooks, BackgroundErrorsOfOtherHooksStillFailTheRun) {
  run.parts.hooks.add(std::make_unique<test::TestHook>([](Subscriptions& on, RunContext&) {
    on.background<AfterTrainIter>({}, [](const AfterTrainIter::Owned&) { throw Error("late"); });
  }));
  EXPECT_THROW(run.train(), HookError);
}

// An isolated hook takes part in a save: what fails in another hook on the way still ends the run.
TEST_F(IsolatedHooks, AnErrorOfAnotherHookInsideAnIsolatedOneEndsTheRun) {
  run.parts.hooks.add(std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1}),
                      {.isolation = Isolation::disable_after(0)});
  run.parts.hooks.add(test::on_event<BeforeSaveCheckpoint>(
      [](const BeforeSaveCheckpoint&, RunContext&) { throw Error("no content"); }, "Content"));
  try {
    run.train();
    FAIL();
  } catch (const HookError& error) {
    EXPECT_EQ(error.hook(), "Content");
  }
}

TEST_F(IsolatedHooks, WhatFailsBeforeTrainingIsNotContained) {
  run.parts.hooks.add(std::make_unique<test::TestHook>([](Subscriptions&, RunContext&) {
                        throw ConfigError("plot.port", "is taken");
                      }),
                      {.isolation = Isolation::disable_after()});
  EXPECT_THROW(run.train(), ConfigError);
}

TEST_F(IsolatedHooks, NoBuiltInHookIsIsolated) {
  const HookList hooks = default_hooks();
  for (const auto& entry : hooks.entries()) {
    EXPECT_EQ(entry.isolated, nullptr) << entry.hook->name();
  }
}

TEST_F(IsolatedHooks, NothingIsSaidWhenNothingFails) {
  add_throwing<BeforeTest>("Never", {.isolation = Isolation::disable_after()});
  run.train();
  EXPECT_THAT(run.log->with("isolated"), IsEmpty());
  EXPECT_EQ(run.runner().hook_errors().at(0).errors, 0u);
}

}  // namespace
}  // namespace millrace
