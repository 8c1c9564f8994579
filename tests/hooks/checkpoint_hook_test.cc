#include "millrace/hooks/checkpoint_hook.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "millrace/io/local_storage.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/engine/message_hub.h"
#include "tests/support/controlled_storage.h"
#include "tests/support/fake_run.h"
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

// ---- arithmetic and names

std::vector<std::int64_t> due_steps(std::int64_t interval, std::int64_t save_begin) {
  const CheckpointHook hook({.interval = interval, .save_begin = save_begin});
  std::vector<std::int64_t> steps;
  for (std::int64_t step = 1; step <= 11; ++step) {
    if (hook.due(step)) steps.push_back(step);
  }
  return steps;
}

// The reference's arithmetic and the examples its tests pin.
TEST(CheckpointHook, DueSteps) {
  EXPECT_THAT(due_steps(2, 0), ElementsAre(2, 4, 6, 8, 10));
  EXPECT_THAT(due_steps(2, 1), ElementsAre(1, 3, 5, 7, 9, 11));
  EXPECT_THAT(due_steps(2, 5), ElementsAre(5, 7, 9, 11));
  EXPECT_THAT(due_steps(3, 4), ElementsAre(4, 7, 10));
  EXPECT_THAT(due_steps(1, 10), ElementsAre(10, 11));
  EXPECT_THAT(due_steps(20, 0), IsEmpty());
  EXPECT_THAT(due_steps(20, 6), ElementsAre(6));
  EXPECT_THAT(due_steps(-1, 0), IsEmpty());
  EXPECT_THAT(due_steps(0, 3), IsEmpty());
}

TEST(CheckpointHook, Names) {
  EXPECT_EQ(CheckpointHook({}).filename(3), "epoch_3.pth");
  EXPECT_EQ(CheckpointHook({.by_epoch = false}).filename(1000), "iter_1000.pth");
  EXPECT_EQ(CheckpointHook({.filename_tmpl = "a{}b.pth"}).filename(7), "a7b.pth");
}

std::string config_error(CheckpointHookOptions options) {
  try {
    const CheckpointHook hook(std::move(options));
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(CheckpointHook, RefusesOptionsThatCannotWork) {
  EXPECT_EQ(config_error({.save_begin = -3}),
            "CheckpointHook.save_begin: should not be less than 0, but got -3");
  for (const char* text : {"epoch.pth", "{}_{}.pth"}) {
    EXPECT_THAT(config_error({.filename_tmpl = text}), HasSubstr("needs exactly one {}")) << text;
  }
  for (const char* text : {"epoch_{}", "a/{}.pth", "{}.pt"}) {
    EXPECT_THAT(config_error({.filename_tmpl = text}), HasSubstr("a file name ending in .pth"))
        << text;
  }
  EXPECT_EQ(config_error({.interval = 0}), "no error");
}

// ---- runs

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
  EXPECT_LT(std::find(events.begin(), events.end(), "checkpoint_committed epoch_4.pth"),
            std::find(events.begin(), events.end(), "checkpoint_removed epoch_1.pth"))
      << "epoch_1.pth stays until two newer ones are there";
}

TEST_F(CheckpointHookTest, SaveLastSavesTheEndOnce) {
  run.options.max_epochs = 5;
  save({.interval = 2});
  run.train();
  EXPECT_THAT(of("checkpoint_captured"), ElementsAre("epoch_2.pth", "epoch_4.pth", "epoch_5.pth"));
  EXPECT_EQ(read("epoch_5.pth").record()->identity.reason, "last");
  EXPECT_EQ(read("epoch_4.pth").record()->identity.reason, "interval");
}

TEST_F(CheckpointHookTest, ByEpochInAnIterationRunIsOneFileAtTheEnd) {
  run.options.max_epochs = 0;
  run.options.max_iters = 10;
  save({.interval = 1});
  run.train();
  EXPECT_THAT(names(), ElementsAre("epoch_1.pth"));
  EXPECT_EQ(read("epoch_1.pth").root().find("meta")->find("iter")->as_int(), 10);
}

TEST_F(CheckpointHookTest, OutDirGetsTheWorkDirsName) {
  save({.interval = 2, .out_dir = dir.path() / "out"});
  run.train();
  run.train();
  EXPECT_THAT(names(dir.path() / "out" / "run"), ElementsAre("epoch_2.pth", "epoch_4.pth"));
  EXPECT_THAT(names(), IsEmpty());
  EXPECT_EQ(test::read_text(LocalStorage(dir.path() / "run"), "last_checkpoint"),
            (dir.path() / "out/run/epoch_4.pth").string());
}

TEST_F(CheckpointHookTest, OutDirThatIsTheWorkDirIsTheWorkDir) {
  save({.interval = 4, .out_dir = dir.path() / "run" / "." / ""});
  run.train();
  EXPECT_THAT(names(), ElementsAre("epoch_4.pth"));
}

TEST_F(CheckpointHookTest, AWorkDirWithALastSlashHasANameToo) {
  run.options.work_dir = dir.path() / "run" / "";
  save({.interval = 4, .out_dir = dir.path() / "out"});
  run.train();
  EXPECT_THAT(names(dir.path() / "out" / "run"), ElementsAre("epoch_4.pth"));
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

TEST_F(CheckpointHookTest, AStopFileIsNoPartOfTheRotationAndGoesWithTheNextRegularOne) {
  save({.interval = 1, .max_keep_ckpts = 2});
  stop_after(10);
  run.train();
  EXPECT_THAT(names(), ElementsAre("epoch_1.pth", "epoch_2.pth", "iter_10.pth"));

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

}  // namespace
}  // namespace millrace
