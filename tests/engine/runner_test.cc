#include "millrace/runtime/engine/runner.h"

#include <gmock/gmock.h>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <cerrno>
#include <future>
#include <thread>

#include "millrace/events/hook_error.h"
#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/runtime/async/error.h"
#include "tests/support/controlled_storage.h"
#include "tests/support/fake_run.h"
#include "tests/support/images.h"
#include "tests/support/run_task.h"
#include "tests/support/stage_log.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

struct RunnerTest : ::testing::Test {
  RunnerTest() : run(dir.path() / "run") {
    run.options.max_epochs = 2;
    run.parts.hooks.add(std::make_unique<test::StageLog>(events));
  }
  void save_every_epoch() {
    auto memory = std::make_unique<test::ControlledStorage>(files);
    run.parts.storage = std::move(memory);
    run.parts.hooks.add(std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1}));
  }
  std::string error_of_train() {
    try {
      run.train();
    } catch (const std::exception& error) {
      return error.what();
    }
    return "no error";
  }
  std::string error_of_runner() {
    try {
      run.runner();
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "no error";
  }

  test::TempDir dir;
  test::FakeRun run;
  std::vector<std::string> events;
  std::shared_ptr<MemoryStorage> files = std::make_shared<MemoryStorage>();
};

// ---- options

using ConfigTest = RunnerTest;

TEST_F(ConfigTest, TheWorkDirIsRequired) {
  run.options.work_dir.clear();
  EXPECT_EQ(error_of_runner(), "work_dir: is required");
}
TEST_F(ConfigTest, TheScalarHistoryHasRoomForTheLogsWindow) {
  run.options.scalar_history = 9;
  EXPECT_EQ(error_of_runner(),
            "scalar_history: must be at least 1, and log_processor.window_size, 10");
}
TEST_F(ConfigTest, TheHubKeepsAsManyEntriesAsItIsTold) {
  run.options.scalar_history = 10;
  EXPECT_EQ(error_of_runner(), "no error");
  for (int i = 0; i < 100; ++i) run.runner().hub().scalar("x").update(i);
  EXPECT_EQ(run.runner().hub().scalar("x").size(), 10u);
}
TEST_F(ConfigTest, TheStrategyIsRequired) {
  run.parts.strategy.reset();
  EXPECT_EQ(error_of_runner(), "strategy: is required");
}
TEST_F(ConfigTest, ATrainLoaderIsRequired) {
  run.parts.train.reset();
  EXPECT_EQ(error_of_runner(), "train: a data loader to train on is required");
}
TEST_F(ConfigTest, ExactlyOneLength) {
  run.options.max_iters = 5;
  EXPECT_EQ(error_of_runner(), "max_epochs: give exactly one of max_epochs and max_iters, above 0");
}
TEST_F(ConfigTest, NoLengthAtAll) {
  run.options.max_epochs = 0;
  EXPECT_THAT(error_of_runner(), HasSubstr("exactly one of max_epochs and max_iters"));
}
TEST_F(ConfigTest, ValidationBegin) {
  run.options.val_begin = -1;
  EXPECT_EQ(error_of_runner(), "val_begin: must not be negative");
}
TEST_F(ConfigTest, ValidationInterval) {
  run.options.val_interval = 0;
  EXPECT_EQ(error_of_runner(), "val_interval: must be at least 1");
}
TEST_F(ConfigTest, MetricsNeedALoader) {
  run.parts.metrics.push_back(std::make_unique<Accuracy>());
  EXPECT_EQ(error_of_runner(), "val: val and metrics should be either both given or both left out");
}
TEST_F(ConfigTest, ALoaderNeedsMetrics) {
  run.parts.val = loader(test::fake_dataset(4));
  EXPECT_THAT(error_of_runner(), HasSubstr("either both given or both left out"));
}
TEST_F(ConfigTest, LoadFromAndResumeExclude) {
  run.options.load_from = "a.pth";
  run.options.resume = Resume::automatic();
  EXPECT_EQ(error_of_runner(),
            "load_from: give either load_from or resume; resume takes the path itself");
}
TEST_F(ConfigTest, AnUnwritableWorkDirIsAStorageErrorBeforeTraining) {
  run.options.work_dir = "/proc/none/run";
  EXPECT_THROW(run.runner(), StorageError);
}
TEST_F(ConfigTest, NothingHappensBeforeTrain) {
  run.runner();
  EXPECT_THAT(events, IsEmpty());
  EXPECT_TRUE(std::filesystem::is_directory(dir.path() / "run"));
  EXPECT_EQ(run.runner().seed(), 1u);
  EXPECT_EQ(run.runner().progress().max_iters, 8);
}

// ---- errors

TEST_F(RunnerTest, AnExceptionInAHookNamesEventAndHookAndStillCleansUp) {
  save_every_epoch();
  run.parts.hooks.add(test::on_event<BeforeTrainIter>(
      [](const BeforeTrainIter& e, RunContext&) {
        if (e.at.iter == 5) throw Error("out of luck");
      },
      "Unlucky"));
  try {
    run.train();
    FAIL();
  } catch (const HookError& error) {
    EXPECT_STREQ(error.what(), "before_train_iter in Unlucky: out of luck");
  }
  EXPECT_EQ(events.back(), "after_run e1 i5");
  EXPECT_THAT(events, Contains("checkpoint_committed epoch_1.pth")) << "I/O is drained";
  EXPECT_THAT(events, Not(Contains(::testing::StartsWith("after_train e"))));
  EXPECT_EQ(test::names_of(*files).size(), 1u);
}

TEST_F(RunnerTest, AnExceptionInTheStrategyStillCleansUp) {
  save_every_epoch();
  int calls = 0;
  run.strategy->on_step = [&] {
    if (++calls == 6) throw Error("loss is not a number");
  };
  EXPECT_EQ(error_of_train(), "loss is not a number");
  EXPECT_EQ(events.back(), "after_run e1 i5");
  EXPECT_THAT(events, Contains("checkpoint_committed epoch_1.pth"));
}

class Unreadable final : public Dataset {
 public:
  std::int64_t size() const override { return 12; }
  std::span<const FieldSpec> fields() const override { return fields_; }
  void read(std::int64_t index, std::span<std::byte* const>) const override {
    if (index == 7) throw Error("sample 7 is gone");
  }

 private:
  std::vector<FieldSpec> fields_ = {{DType::kFloat32, {2}}};
};

TEST_F(RunnerTest, AnExceptionInTheDataSetStillCleansUp) {
  run.parts.train = loader(std::make_shared<Unreadable>(), {.batch_size = 3});
  EXPECT_EQ(error_of_train(), "sample 7 is gone");
  EXPECT_EQ(events.back(), "after_run e0 i2");
}

TEST_F(RunnerTest, AnExceptionInBeforeRunStillPublishesAfterRun) {
  run.parts.hooks.add(
      test::on_event<BeforeRun>([](const BeforeRun&, RunContext&) { throw Error("no"); }));
  EXPECT_EQ(error_of_train(), "before_run in TestHook: no");
  EXPECT_THAT(events, ElementsAre("before_run e0 i0", "after_run e0 i0"));
}

TEST_F(RunnerTest, TheFirstErrorIsTheOneThatIsThrown) {
  run.parts.hooks.add(test::on_event<BeforeTrain>(
      [](const BeforeTrain&, RunContext&) { throw Error("first"); }, "A"));
  run.parts.hooks.add(
      test::on_event<AfterRun>([](const AfterRun&, RunContext&) { throw Error("second"); }, "B"));
  EXPECT_EQ(error_of_train(), "before_train in A: first");
}

// The last save's completion meets a hook that throws while a removal is still in flight.
TEST_F(RunnerTest, AnExceptionWhileDrainingLeavesNothingInFlight) {
  run.parts.storage = std::make_unique<test::ControlledStorage>(files);
  run.parts.hooks.add(
      std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1, .max_keep_ckpts = 1}));
  run.parts.hooks.add(test::on_event<CheckpointCommitted>(
      [](const CheckpointCommitted& e, RunContext&) {
        if (e.row.name == "epoch_2.pth") throw Error("cannot tell anyone");
      },
      "Teller"));
  EXPECT_EQ(error_of_train(), "checkpoint_committed in Teller: cannot tell anyone");
  EXPECT_EQ(events.back(), "after_run e2 i8");
  EXPECT_THAT(events, Contains("checkpoint_removed epoch_1.pth"));
  ASSERT_EQ(test::names_of(*files).size(), 1u);
  EXPECT_EQ(test::names_of(*files)[0], "epoch_2.pth");
}

TEST_F(RunnerTest, AFailedSaveIsThrownAtTheEndAndNotBefore) {
  run.parts.storage = std::make_unique<test::ControlledStorage>(files, [](std::string_view name) {
    if (name == "epoch_1.pth") throw StorageError("write", "epoch_1.pth", ENOSPC);
  });
  run.parts.hooks.add(std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1}));
  EXPECT_THAT(error_of_train(), HasSubstr("1 of this run's saves failed"));
  EXPECT_EQ(run.runner().progress().iter, 8) << "training went on";
  EXPECT_THAT(events, Contains("checkpoint_failed epoch_1.pth"));
  EXPECT_THAT(events, Contains("checkpoint_committed epoch_2.pth"));
  EXPECT_EQ(events.back(), "after_run e2 i8");
  EXPECT_EQ(error_of_train(), "no error") << "the failures are those of one train()";
}

// ---- stopping

TEST_F(RunnerTest, AStopBeforeTrainRunsNoIteration) {
  run.runner().request_stop("host");
  EXPECT_FALSE(run.runner().stopped());
  run.train();
  EXPECT_TRUE(run.runner().stopped());
  EXPECT_EQ(run.runner().stop_reason(), "host");
  EXPECT_THAT(events, ElementsAre("before_run e0 i0", "before_train e0 i0", "stop_requested e0 i0",
                                  "after_train e0 i0", "after_run e0 i0"));
}

TEST_F(RunnerTest, AStopFinishesTheIterationAndCountsOnce) {
  run.parts.hooks.add(
      test::on_event<BeforeTrainIter>([](const BeforeTrainIter& e, RunContext& context) {
        if (e.at.iter != 2) return;
        context.request_stop("first");
        context.request_stop("second");
      }));
  run.train();
  EXPECT_EQ(run.runner().stop_reason(), "first");
  EXPECT_THAT(std::vector(events.end() - 5, events.end()),
              ElementsAre("before_optimizer_step e0 i2", "after_train_iter e0 i2 b2",
                          "stop_requested e0 i3", "after_train e0 i3", "after_run e0 i3"));
}

TEST_F(RunnerTest, AStopInValidationEndsItWithoutMetrics) {
  run.validate();
  run.parts.hooks.add(test::on_event<BeforeValIter>(
      [](const BeforeValIter&, RunContext& context) { context.request_stop("now"); }));
  run.train();
  EXPECT_THAT(std::vector(events.end() - 5, events.end()),
              ElementsAre("after_val_iter e1 i4 b0", "stop_requested e1 i4", "after_val e1 i4",
                          "after_train e1 i4", "after_run e1 i4"));
  EXPECT_THAT(events, Not(Contains("after_val_epoch e1 i4")));
}

TEST_F(RunnerTest, AStopFromAnotherThread) {
  run.options.max_epochs = 0;
  run.options.max_iters = 1'000'000'000;
  run.options.io.threads = 1;
  Runner& runner = run.runner();
  TrainContext context;
  std::promise<void> ended;
  std::promise<void> started;
  run.strategy->on_step = [&, first = true]() mutable {
    if (std::exchange(first, false)) started.set_value();
  };
  context.start(runner.train(), [&](std::exception_ptr error) {
    EXPECT_EQ(error, nullptr);
    ended.set_value();
  });
  started.get_future().wait();
  runner.request_stop("SIGTERM");
  ended.get_future().wait();
  EXPECT_TRUE(runner.stopped());
  EXPECT_LT(runner.progress().iter, 1'000'000'000);
}

TEST_F(RunnerTest, TrainAgainAfterAStopContinues) {
  run.parts.hooks.add(
      test::on_event<BeforeTrainIter>([](const BeforeTrainIter& e, RunContext& context) {
        if (e.at.iter == 2) context.request_stop("pause");
      }));
  run.train();
  EXPECT_TRUE(run.runner().stopped());
  EXPECT_EQ(run.runner().progress().iter, 3);
  events.clear();
  run.train();
  EXPECT_FALSE(run.runner().stopped());
  EXPECT_EQ(run.runner().stop_reason(), "");
  EXPECT_EQ(run.runner().progress().iter, 8);
  EXPECT_THAT(std::vector(events.begin(), events.begin() + 4),
              ElementsAre("before_run e0 i3", "before_train e0 i3", "before_train_epoch e0 i3",
                          "before_train_iter e0 i3 b3"));
  EXPECT_EQ(events.back(), "after_run e2 i8");

  test::FakeRun straight(dir.path() / "straight");
  straight.options.max_epochs = 2;
  straight.train();
  EXPECT_EQ(run.strategy->state(), straight.strategy->state());
}

TEST_F(RunnerTest, TrainAgainAfterTheEndTrainsNoMore) {
  run.train();
  events.clear();
  run.train();
  EXPECT_THAT(events, ElementsAre("before_run e2 i8", "before_train e2 i8", "after_train e2 i8",
                                  "after_run e2 i8"));
}

TEST_F(RunnerTest, TrainAgainAfterAnErrorIsRefused) {
  bool thrown = false;
  run.strategy->on_forward = [&] {
    if (run.runner().progress().iter == 5 && !std::exchange(thrown, true)) throw Error("once");
  };
  EXPECT_EQ(error_of_train(), "once");
  events.clear();
  EXPECT_THAT(error_of_train(), HasSubstr("make a new runner and resume"));
  EXPECT_THAT(events, IsEmpty()) << "a half-done step is no state to go on from";
}

// A stop that is pending when a step fails must not save what the failed step left behind.
TEST_F(RunnerTest, AnErrorWithAStopPendingSavesNothing) {
  run.parts.hooks.add(std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1}));
  run.strategy->on_forward = [&] {
    if (run.runner().progress().iter != 5) return;
    run.runner().request_stop("test");
    throw Error("once");
  };
  EXPECT_EQ(error_of_train(), "once");
  EXPECT_THAT(events, Not(Contains(StartsWith("stop_requested"))));
  EXPECT_FALSE(std::filesystem::exists(run.options.work_dir / "iter_5.pth"));
}

TEST_F(RunnerTest, TwoRunsDoNotShareAWorkDir) {
  run.parts.hooks.add(std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1}));
  std::string second_error;
  run.strategy->on_forward = [&] {
    if (run.runner().progress().iter != 1) return;
    test::FakeRun second(run.options.work_dir);
    second.options.max_epochs = 1;
    second.parts.hooks.add(std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1}));
    try {
      second.train();
    } catch (const StorageError& error) {
      second_error = error.what();
    }
  };
  EXPECT_EQ(error_of_train(), "no error");
  EXPECT_THAT(second_error, HasSubstr("another run is writing checkpoints there"));
}

// ---- hosts

Task<> host_task(Runner* runner, std::string* log) {
  *log += "<";
  co_await runner->train();
  *log += ">";
}

TEST_F(RunnerTest, AHostAwaitsItOnItsOwnContext) {
  save_every_epoch();
  asio::io_context context(1);
  std::string log;
  const auto host = std::this_thread::get_id();
  run.strategy->on_forward = [&] { EXPECT_EQ(std::this_thread::get_id(), host); };
  test::run_task(context, host_task(&run.runner(), &log));
  EXPECT_EQ(log, "<>");
  EXPECT_EQ(events.back(), "after_run e2 i8");
  EXPECT_EQ(test::names_of(*files).size(), 2u);
}

TEST_F(RunnerTest, TheHostsCancellationDoesNotReachIt) {
  asio::io_context host;
  asio::cancellation_signal cancel;
  run.strategy->on_forward = [&] {
    if (run.runner().progress().iter == 3) cancel.emit(asio::cancellation_type::terminal);
  };
  std::exception_ptr outcome;
  const auto done = [&outcome](std::exception_ptr error) { outcome = error; };
  asio::co_spawn(host, run.runner().train(), asio::bind_cancellation_slot(cancel.slot(), done));
  host.run();
  EXPECT_EQ(outcome, nullptr);
  EXPECT_EQ(run.runner().progress().iter, 8);
  EXPECT_EQ(events.back(), "after_run e2 i8");
}

TEST_F(RunnerTest, ASecondTrainAtTheSameTimeIsRefused) {
  asio::io_context context(1);
  std::string log, second_log, error_text;
  asio::co_spawn(context, host_task(&run.runner(), &log),
                 [](std::exception_ptr e) { EXPECT_EQ(e, nullptr); });
  asio::co_spawn(context, host_task(&run.runner(), &second_log), [&](std::exception_ptr e) {
    try {
      std::rethrow_exception(e);
    } catch (const Error& error) {
      error_text = error.what();
    }
  });
  context.run();
  EXPECT_EQ(log, "<>");
  EXPECT_EQ(error_text, "train() is already running on this runner");
}

TEST_F(RunnerTest, ASecondTrainWhileTheFirstCleansUpIsRefused) {
  save_every_epoch();
  std::vector<std::string> refusals;
  bool asked = false;
  const auto ask = [&](const AfterRun&) -> Task<> {
    if (std::exchange(asked, true)) co_return;
    try {
      co_await run.runner().train();
    } catch (const Error& error) {
      refusals.push_back(error.what());
    }
  };
  run.parts.hooks.add(std::make_unique<test::TestHook>(
      [&](Subscriptions& on, RunContext&) { on.awaited<AfterRun>(ask); }));
  run.train();
  EXPECT_THAT(refusals, ElementsAre("train() is already running on this runner"));
  EXPECT_EQ(error_of_train(), "no error") << "it has ended";
}

TEST_F(RunnerTest, ASecondTrainWhileAFailedOneCleansUpIsRefused) {
  run.strategy->on_step = [] { throw Error("loss is not a number"); };
  std::string refusal;
  const auto ask = [&](const AfterRun&) -> Task<> {
    try {
      co_await run.runner().train();
    } catch (const Error& error) {
      refusal = error.what();
    }
  };
  run.parts.hooks.add(std::make_unique<test::TestHook>(
      [&](Subscriptions& on, RunContext&) { on.awaited<AfterRun>(ask); }));
  EXPECT_EQ(error_of_train(), "loss is not a number");
  EXPECT_EQ(refusal, "train() is already running on this runner");
  EXPECT_THAT(error_of_train(), HasSubstr("an earlier train() of this runner failed"));
}

TEST_F(RunnerTest, TwoRunnersShareAnIoPool) {
  IoPool io;
  test::FakeRun alone(dir.path() / "alone");
  alone.options.max_epochs = 3;
  alone.train();

  std::vector<std::unique_ptr<test::FakeRun>> runs;
  std::vector<std::unique_ptr<TrainContext>> contexts;
  std::vector<std::promise<std::exception_ptr>> ends(2);
  for (std::size_t i = 0; i < 2; ++i) {
    runs.push_back(std::make_unique<test::FakeRun>(dir.path() / std::to_string(i)));
    runs[i]->options.max_epochs = 3;
    runs[i]->options.shared_io = &io;
    runs[i]->parts.hooks.add(
        std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1}));
    contexts.push_back(std::make_unique<TrainContext>());
    contexts[i]->start(runs[i]->runner().train(),
                       [&end = ends[i]](std::exception_ptr error) { end.set_value(error); });
  }
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(ends[i].get_future().get(), nullptr);
    EXPECT_EQ(runs[i]->strategy->state(), alone.strategy->state());
    EXPECT_TRUE(std::filesystem::exists(dir.path() / std::to_string(i) / "epoch_3.pth"));
  }
}

}  // namespace
}  // namespace millrace
