// Runs with a CheckpointHook beyond what the tables of its semantics show (index:
// checkpoint_semantics_test.cc): the order of events, failures, stops, branches, pins, the budget.
#include "millrace/hooks/checkpoint_hook.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <thread>

#include "millrace/io/local_storage.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/engine/message_hub.h"
#include "tests/support/controlled_storage.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_run.h"
#include "tests/support/hold.h"
#include "tests/support/images.h"
#include "tests/support/stage_log.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

struct CheckpointHookTest : ::testing::Test {
  CheckpointHookTest() : run(dir.path() / "run") {
    run.options.max_epochs = 4;
    run.parts.hooks.add(std::make_unique<test::StageLog>(events));
  }
  void save(CheckpointHookOptions options) {
    run.parts.hooks.add(std::make_unique<CheckpointHook>(std::move(options)));
  }
  // Into memory, with the commits of `failing` refused.
  void fail_commits(std::set<std::string> failing) {
    run.parts.storage =
        std::make_unique<test::ControlledStorage>(files, [failing](std::string_view name) {
          if (failing.contains(std::string(name))) {
            throw StorageError("write", std::string(name), ENOSPC);
          }
        });
  }
  void stop_after(std::int64_t iter) {
    run.parts.hooks.add(test::on_event<BeforeOptimizerStep>(
        [iter](const BeforeOptimizerStep& e, RunContext& context) {
          if (e.at.iter + 1 == iter) context.request_stop("test");
        }));
  }
  std::vector<std::string> names(const std::filesystem::path& folder) const {
    std::vector<std::string> names;
    for (const std::string& name : test::names_of(LocalStorage(folder))) {
      if (name.ends_with(".pth")) names.push_back(name);
    }
    return names;
  }
  std::vector<std::string> names() const { return names(dir.path() / "run"); }
  std::vector<std::string> of(const std::string& event) const {
    std::vector<std::string> found;
    for (const std::string& line : events) {
      if (line.starts_with(event + " ")) found.push_back(line.substr(event.size() + 1));
    }
    return found;
  }
  CheckpointFile read(std::string_view name) const {
    return CheckpointFile::read(LocalStorage(dir.path() / "run"), name);
  }

  test::TempDir dir;
  test::FakeRun run;
  std::vector<std::string> events;
  std::shared_ptr<MemoryStorage> files = std::make_shared<MemoryStorage>();
};

std::vector<std::int64_t> keep_ids(const CheckpointFile& file) {
  std::vector<std::int64_t> ids;
  const pickle::Value* info = file.root().find("message_hub")->find("runtime_info");
  for (const pickle::Value& id : *info->find("keep_ckpt_ids")->as_sequence()) {
    ids.push_back(id.as_int().value());
  }
  return ids;
}

TEST_F(CheckpointHookTest, AFileListsItselfAndCountsWhatIsFinished) {
  save({.interval = 1, .max_keep_ckpts = 2});
  run.train();
  EXPECT_THAT(names(), ElementsAre("epoch_3.pth", "epoch_4.pth"));
  const CheckpointFile third = read("epoch_3.pth");
  EXPECT_THAT(keep_ids(third), ElementsAre(2, 3));
  EXPECT_THAT(keep_ids(read("epoch_4.pth")), ElementsAre(3, 4));
  EXPECT_EQ(third.root().find("meta")->find("epoch")->as_int(), 3);
  EXPECT_EQ(third.root().find("meta")->find("iter")->as_int(), 12);
  const pickle::Value* info = third.root().find("message_hub")->find("runtime_info");
  EXPECT_EQ(*info->find("last_ckpt")->as_string(), (dir.path() / "run/epoch_3.pth").string());
  EXPECT_EQ(test::read_text(LocalStorage(dir.path() / "run"), "last_checkpoint"),
            (dir.path() / "run/epoch_4.pth").string());
  EXPECT_THAT(of("checkpoint_removed"), UnorderedElementsAre("epoch_1.pth", "epoch_2.pth"));
  EXPECT_THAT(run.log->with("Checkpoints will be saved to " + (dir.path() / "run").string() + "."),
              SizeIs(1));
  EXPECT_THAT(run.log->with("Saving checkpoint at 3 epochs"), SizeIs(1));
}

TEST_F(CheckpointHookTest, NothingIsRemovedBeforeTheSuccessorIsDurable) {
  save({.interval = 1, .max_keep_ckpts = 1});
  run.train();
  std::vector<std::string> order;
  for (const std::string& line : events) {
    if (line.starts_with("checkpoint_committed") || line.starts_with("checkpoint_removed")) {
      order.push_back(line.substr(11));
    }
  }
  const auto place = [&](const std::string& line) {
    return std::find(order.begin(), order.end(), line) - order.begin();
  };
  for (int epoch = 1; epoch < 4; ++epoch) {
    const std::string file = " epoch_" + std::to_string(epoch) + ".pth";
    const std::string next = " epoch_" + std::to_string(epoch + 1) + ".pth";
    EXPECT_LT(place("committed" + next), place("removed" + file));
  }
  EXPECT_THAT(order, SizeIs(7));
}

TEST_F(CheckpointHookTest, AFailedSaveRemovesNothingAndTakesNoSlot) {
  save({.interval = 1, .max_keep_ckpts = 2});
  fail_commits({"epoch_3.pth"});
  EXPECT_THROW(run.train(), CheckpointError);
  EXPECT_THAT(of("checkpoint_failed"), ElementsAre("epoch_3.pth"));
  EXPECT_THAT(test::names_of(*files), ElementsAre("epoch_2.pth", "epoch_4.pth"));
  EXPECT_EQ(test::read_text(LocalStorage(dir.path() / "run"), "last_checkpoint"),
            "memory:/epoch_4.pth");
}

TEST_F(CheckpointHookTest, WithOneSlotAFailedSaveLeavesTheEarlierFile) {
  save({.interval = 1, .max_keep_ckpts = 1});
  fail_commits({"epoch_2.pth", "epoch_3.pth", "epoch_4.pth"});
  EXPECT_THROW(run.train(), CheckpointError);
  EXPECT_THAT(test::names_of(*files), ElementsAre("epoch_1.pth"));
  EXPECT_EQ(test::read_text(LocalStorage(dir.path() / "run"), "last_checkpoint"),
            "memory:/epoch_1.pth");
}

TEST_F(CheckpointHookTest, AFailedSaveTakesNoSlotInALaterTrainEither) {
  save({.interval = 1, .max_keep_ckpts = 2});
  fail_commits({"epoch_2.pth"});
  stop_after(10);
  EXPECT_THROW(run.train(), CheckpointError);  // epoch 1, not 2, and the stop in epoch 3
  EXPECT_THAT(test::names_of(*files), ElementsAre("epoch_1.pth", "iter_10.pth"));
  run.train();
  EXPECT_THAT(test::names_of(*files), ElementsAre("epoch_3.pth", "epoch_4.pth"));
  EXPECT_THAT(of("checkpoint_removed"), UnorderedElementsAre("iter_10.pth", "epoch_1.pth"));
  const auto place = [this](const std::string& event) {
    return std::find(events.begin(), events.end(), event);
  };
  // Each goes when two newer ones are there; the file of the stop is one of them.
  EXPECT_LT(place("checkpoint_committed epoch_3.pth"), place("checkpoint_removed epoch_1.pth"));
  EXPECT_LT(place("checkpoint_committed epoch_4.pth"), place("checkpoint_removed iter_10.pth"));
}

TEST_F(CheckpointHookTest, SaveLastSavesTheEndOnce) {
  run.options.max_epochs = 5;
  save({.interval = 2});
  run.train();
  EXPECT_THAT(of("checkpoint_captured"), ElementsAre("epoch_2.pth", "epoch_4.pth", "epoch_5.pth"));
  EXPECT_EQ(read("epoch_5.pth").record()->identity.reason, "last");
  EXPECT_EQ(read("epoch_4.pth").record()->identity.reason, "interval");
}

// ---- stops

TEST_F(CheckpointHookTest, AStopAmidAnEpochSavesTheIteration) {
  save({.interval = 1});
  stop_after(6);
  run.train();
  EXPECT_THAT(names(), ElementsAre("epoch_1.pth", "iter_6.pth"));
  const CheckpointFile file = read("iter_6.pth");
  EXPECT_EQ(file.root().find("meta")->find("epoch")->as_int(), 1);
  EXPECT_EQ(file.root().find("meta")->find("iter")->as_int(), 6);
  EXPECT_EQ(file.record()->identity.reason, "stop");
}

TEST_F(CheckpointHookTest, AStopSavesNothingTwice) {
  run.options.max_epochs = 0;
  run.options.max_iters = 20;
  save({.interval = 3, .by_epoch = false});
  stop_after(6);
  run.train();
  EXPECT_THAT(of("checkpoint_captured"), ElementsAre("iter_3.pth", "iter_6.pth"));
}

TEST_F(CheckpointHookTest, AStopInValidationSavesNothingTwice) {
  save({.interval = 1});
  run.validate();
  run.parts.hooks.add(test::on_event<BeforeVal>(
      [](const BeforeVal&, RunContext& context) { context.request_stop("test"); }));
  run.train();
  EXPECT_THAT(of("checkpoint_captured"), ElementsAre("epoch_1.pth"));
}

TEST_F(CheckpointHookTest, AStopInValidationSavesTheEpochThatWasNotDue) {
  save({.interval = 3});
  run.validate();
  run.parts.hooks.add(test::on_event<BeforeVal>(
      [](const BeforeVal&, RunContext& context) { context.request_stop("test"); }));
  run.train();
  EXPECT_THAT(names(), ElementsAre("epoch_1.pth"));
}

TEST_F(CheckpointHookTest, AStopBeforeTheFirstIterationSavesNothing) {
  save({.interval = 1});
  run.runner().request_stop("test");
  run.train();
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(CheckpointHookTest, AFileInsideAnEpochTakesASlotOfTheRotation) {
  save({.interval = 1, .max_keep_ckpts = 2});
  stop_after(10);
  run.train();
  EXPECT_THAT(names(), ElementsAre("epoch_2.pth", "iter_10.pth"));

  test::FakeRun resumed(dir.path() / "run");
  resumed.options.max_epochs = 4;
  resumed.options.resume = Resume::automatic();
  resumed.parts.hooks.add(
      std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1, .max_keep_ckpts = 2}));
  resumed.train();
  EXPECT_THAT(resumed.log->with("Resumed from"), ElementsAre(HasSubstr("iter_10.pth")));
  EXPECT_THAT(names(), ElementsAre("epoch_3.pth", "epoch_4.pth"));
}

// ---- resumed lists

TEST_F(CheckpointHookTest, AResumedRunGoesOnWithTheListOfTheFile) {
  save({.interval = 1, .max_keep_ckpts = 3});
  run.train();
  EXPECT_THAT(names(), ElementsAre("epoch_2.pth", "epoch_3.pth", "epoch_4.pth"));
  test::FakeRun resumed(dir.path() / "run");
  resumed.options.max_epochs = 5;
  resumed.options.resume = Resume::automatic();
  resumed.parts.hooks.add(
      std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1, .max_keep_ckpts = 2}));
  resumed.train();
  EXPECT_THAT(names(), ElementsAre("epoch_4.pth", "epoch_5.pth")) << "a smaller number counts";
}

// ---- branches

// Of three runs in one folder: the second goes back to epoch 2 and takes over the name epoch_3, the
// third goes on from the first one's epoch 4, whose list names an epoch_3 that is no longer its
// own.
TEST_F(CheckpointHookTest, AnotherBranchsFileIsNeitherCountedNorRemoved) {
  const auto run_to = [this](std::int64_t epochs, const std::string& from) {
    test::FakeRun next(dir.path() / "run");
    next.options.max_epochs = epochs;
    if (!from.empty()) next.options.resume = Resume::from((dir.path() / "run" / from).string());
    next.parts.hooks.add(std::make_unique<CheckpointHook>(
        CheckpointHookOptions{.interval = 1, .max_keep_ckpts = 3}));
    next.train();
  };
  run_to(4, "");
  ASSERT_THAT(names(), ElementsAre("epoch_2.pth", "epoch_3.pth", "epoch_4.pth"));
  run_to(3, "epoch_2.pth");
  const std::string other = read("epoch_3.pth").record()->identity.save_id;
  run_to(6, "epoch_4.pth");
  EXPECT_THAT(names(), ElementsAre("epoch_3.pth", "epoch_4.pth", "epoch_5.pth", "epoch_6.pth"));
  EXPECT_EQ(read("epoch_3.pth").record()->identity.save_id, other);
}

// ---- on demand, pins

TEST_F(CheckpointHookTest, AnotherThreadAsksForACheckpoint) {
  save({.interval = -1, .save_last = false});
  run.parts.hooks.add(test::on_event<AfterTrainIter>(
      [this](const AfterTrainIter& e, RunContext&) {
        if (e.at.iter == 5) std::thread([this] { run.runner().checkpoint_now(); }).join();
      },
      "Asks"));
  run.train();
  EXPECT_THAT(names(), ElementsAre("iter_6.pth"));
  EXPECT_EQ(read("iter_6.pth").record()->identity.reason, "on_demand");
}

struct PinTest : CheckpointHookTest {
  // One file kept, each durable before training goes on; `act` is called before each epoch.
  void run_with(std::function<void(CheckpointHook&, std::int64_t epoch)> act) {
    save({.interval = 1, .max_keep_ckpts = 1, .mode = StageMode::kBlocking});
    run.parts.hooks.add(std::make_unique<test::TestHook>(
        [this, act](Subscriptions& on, RunContext&) {
          on.every<BeforeTrainEpoch>([this, act](const BeforeTrainEpoch& e) {
            auto* hook = dynamic_cast<CheckpointHook*>(run.runner().hooks().find("CheckpointHook"));
            act(*hook, e.at.epoch);
          });
        },
        "Acts"));
    run.train();
  }
};

TEST_F(PinTest, APinnedFileStaysUntilItIsUnpinned) {
  run_with([](CheckpointHook& hook, std::int64_t epoch) {
    if (epoch == 1) hook.pin("epoch_1.pth");
    if (epoch == 2) hook.pin("epoch_2.pth");
    if (epoch == 3) hook.pin("epoch_2.pth", false);
  });
  EXPECT_THAT(names(), ElementsAre("epoch_1.pth", "epoch_4.pth"));
}

// The catalog has no row before the commit, so both wait for it.
TEST_F(CheckpointHookTest, APinAndAScoreOfAFileOnItsWayReachTheCatalog) {
  test::Hold commit;
  run.options.max_epochs = 1;
  run.parts.val = loader(test::fake_dataset(4), {.batch_size = 2});
  run.parts.metrics.push_back(std::make_unique<Accuracy>());
  run.parts.storage = std::make_unique<test::ControlledStorage>(files, [&](std::string_view name) {
    if (name == "epoch_1.pth") commit.enter();
  });
  save({.interval = 1, .save_best = {"accuracy"}, .mode = StageMode::kLazy});
  run.parts.hooks.add(test::on_event<AfterVal>(
      [&](const AfterVal&, RunContext&) {
        commit.wait_until_entered();
        auto* hook = dynamic_cast<CheckpointHook*>(run.runner().hooks().find("CheckpointHook"));
        hook->pin("epoch_1.pth");
        commit.release();
      },
      "Pins"));
  run.train();
  Catalog catalog(*files);
  catalog.open();
  const CatalogRow* row = catalog.find("epoch_1.pth");
  ASSERT_NE(row, nullptr);
  EXPECT_EQ(row->pinned, true);
  EXPECT_EQ(row->scores.count("accuracy"), 1u);
}

TEST_F(PinTest, APinOutlivesTheRun) {
  run_with([](CheckpointHook& hook, std::int64_t epoch) {
    if (epoch == 1) hook.pin("epoch_1.pth");
  });
  test::FakeRun resumed(dir.path() / "run");
  resumed.options.max_epochs = 6;
  resumed.options.resume = Resume::automatic();
  resumed.parts.hooks.add(
      std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1, .max_keep_ckpts = 1}));
  resumed.train();
  EXPECT_THAT(names(), ElementsAre("epoch_1.pth", "epoch_6.pth"));
}

TEST_F(PinTest, OfManyTheLastCounts) {
  run_with([](CheckpointHook& hook, std::int64_t epoch) {
    if (epoch != 3) return;
    for (int i = 0; i < 20; ++i) {
      hook.pin("epoch_3.pth", false);
      hook.pin("epoch_3.pth");
    }
  });
  LocalStorage storage(dir.path() / "run");
  Catalog catalog(storage);
  catalog.open();
  ASSERT_NE(catalog.find("epoch_3.pth"), nullptr);
  EXPECT_EQ(catalog.find("epoch_3.pth")->pinned, true);
}

TEST_F(PinTest, AfterTheRunItIsAnError) {
  run_with([](CheckpointHook&, std::int64_t) {});
  auto* hook = dynamic_cast<CheckpointHook*>(run.runner().hooks().find("CheckpointHook"));
  try {
    hook->pin("epoch_4.pth");
    FAIL() << "it was taken";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("only while train() runs"));
  }
}

TEST_F(PinTest, AnUnknownFileIsAnErrorWithTheNearestName) {
  std::string error;
  run_with([&](CheckpointHook& hook, std::int64_t epoch) {
    if (epoch != 3) return;
    try {
      hook.pin("epoch3.pth");
    } catch (const ConfigError& refused) {
      error = refused.nearest();
    }
  });
  EXPECT_EQ(error, "epoch_3.pth");
}

// ---- the stall budget, with a clock that makes a step a nanosecond or an hour

struct BudgetTest : CheckpointHookTest {
  void run_with_steps_of(std::chrono::nanoseconds step) {
    auto clock = std::make_shared<test::FakeClock>();
    run.options.max_epochs = 0;
    run.options.max_iters = 12;
    run.parts.clock = clock;
    run.parts.hooks.add(test::on_event<BeforeTrainIter>(
        [clock, step](const BeforeTrainIter&, RunContext&) { clock->advance(step); }, "Clock"));
    save({.interval = 2, .by_epoch = false, .mode = StageMode::kBlocking, .stall_budget = 0.01});
    run.train();
  }
};

TEST_F(BudgetTest, SavesThatCostTooMuchWidenTheInterval) {
  run_with_steps_of(std::chrono::nanoseconds(1));
  EXPECT_THAT(names(), ElementsAre("iter_12.pth", "iter_2.pth")) << "the last one is always made";
  EXPECT_THAT(run.log->with("of an interval: saving every"),
              ::testing::Contains(HasSubstr("Saving iter_2.pth took")));
}

TEST_F(BudgetTest, SavesWithinTheBudgetChangeNothing) {
  run_with_steps_of(std::chrono::hours(1));
  EXPECT_THAT(names(), SizeIs(6));
  EXPECT_THAT(run.log->with("of an interval: saving every"), IsEmpty());
}

}  // namespace
}  // namespace millrace
