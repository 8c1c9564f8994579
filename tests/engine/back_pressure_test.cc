// Saves that come faster than the storage takes them. The storage is held by hand, so the order of
// things is given and no clock decides.
#include <gmock/gmock.h>

#include <set>

#include "millrace/events/checkpoint_events.h"
#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/engine/checkpointer.h"
#include "tests/support/controlled_storage.h"
#include "tests/support/fake_run.h"
#include "tests/support/hold.h"
#include "tests/support/images.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using State = std::vector<std::vector<std::byte>>;

struct BackPressureTest : ::testing::Test {
  BackPressureTest() : run(dir.path() / "run") {
    run.options.max_iters = 10;
    run.parts.storage =
        std::make_unique<test::ControlledStorage>(files, [this](std::string_view name) {
          if (name == "iter_1.pth") commit.enter();
        });
    run.parts.hooks.add(std::make_unique<test::TestHook>(
        [this](Subscriptions& on, RunContext& context) {
          on.every<BeforeTrain>([this, &context](const BeforeTrain&) { run_ = &context; });
          on.every<CheckpointCaptured>([this](const CheckpointCaptured& e) {
            events.push_back("captured " + e.row.name);
            states[e.row.name] = run.strategy->state();
          });
          on.every<CheckpointCommitted>([this](const CheckpointCommitted& e) {
            events.push_back("committed " + e.row.name);
          });
          on.every<CheckpointSkipped>([this](const CheckpointSkipped& e) {
            events.push_back("skipped " + e.row.name);
            EXPECT_EQ(e.row.reason, "interval");
            EXPECT_EQ(e.row.error, "iter_1.pth is still being written");
          });
          on.every<CheckpointReplaced>(
              [this](const CheckpointReplaced& e) { events.push_back("replaced " + e.row.name); });
        },
        "Events", Priority::kHighest));
  }
  void save_by(OnBusy on_busy, std::int64_t interval = 1) {
    CheckpointHookOptions options;
    options.interval = interval;
    options.by_epoch = false;
    options.on_busy = on_busy;
    options.mode = StageMode::kLazy;
    run.parts.hooks.add(std::make_unique<CheckpointHook>(options));
  }
  template <class E>
  void release_at(std::size_t count) {
    run.parts.hooks.add(test::on_event<E>(
        [this, count, seen = std::size_t{0}](const E&, RunContext&) mutable {
          if (++seen == count) commit.release();
        },
        "Release"));
  }
  std::size_t count(const std::string& kind) const {
    return static_cast<std::size_t>(std::count_if(
        events.begin(), events.end(), [&](const auto& e) { return e.starts_with(kind + " "); }));
  }
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const std::string& name : test::names_of(*files)) {
      if (name.ends_with(".pth")) found.push_back(name);
    }
    return found;
  }
  void expect_files_as_captured() {
    for (const std::string& name : names()) {
      EXPECT_EQ(test::state_in(*files, name), states.at(name)) << name;
    }
  }

  test::TempDir dir;
  test::FakeRun run;
  std::shared_ptr<MemoryStorage> files = std::make_shared<MemoryStorage>();
  test::Hold commit;
  std::vector<std::string> events;
  std::map<std::string, State> states;
  RunContext* run_ = nullptr;
};

// A step further is possible only when the file before is durable.
TEST_F(BackPressureTest, WaitWritesEveryFileInOrder) {
  save_by(OnBusy::kWait);
  release_at<CheckpointCaptured>(1);
  run.train();
  EXPECT_THAT(names(), SizeIs(10));
  EXPECT_EQ(count("captured"), 10u);
  EXPECT_EQ(count("committed"), 10u);
  EXPECT_EQ(count("skipped") + count("replaced"), 0u);
  std::vector<std::string> committed;
  for (const std::string& event : events) {
    if (event.starts_with("committed ")) committed.push_back(event.substr(10));
  }
  for (std::size_t i = 0; i < committed.size(); ++i) {
    EXPECT_EQ(committed[i], "iter_" + std::to_string(i + 1) + ".pth");
  }
  expect_files_as_captured();
}

TEST_F(BackPressureTest, SkipTakesNothingWhileBusyButAlwaysTheLast) {
  save_by(OnBusy::kSkip);
  release_at<CheckpointSkipped>(8);  // of the iterations 2 to 9
  run.train();
  EXPECT_THAT(names(), ElementsAre("iter_1.pth", "iter_10.pth"));
  EXPECT_EQ(count("captured"), 2u) << "a skipped save captures nothing";
  EXPECT_EQ(count("skipped"), 8u);
  EXPECT_THAT(run.log->with("Skipped saving iter_5.pth"),
              ElementsAre(HasSubstr("iter_1.pth is still being written")));
  EXPECT_EQ(run_->checkpointer.counts().skipped, 8u);
  EXPECT_EQ(run_->checkpointer.counts().committed, 2u);
  expect_files_as_captured();
}

TEST_F(BackPressureTest, ReplaceKeepsTheNewestInTheSlot) {
  save_by(OnBusy::kReplace);
  release_at<CheckpointReplaced>(8);  // 2 to 9, the last of them by the last save
  run.train();
  EXPECT_THAT(names(), ElementsAre("iter_1.pth", "iter_10.pth"));
  EXPECT_EQ(count("captured"), 10u);
  EXPECT_EQ(count("replaced"), 8u);
  EXPECT_EQ(run_->checkpointer.counts().replaced, 8u);
  expect_files_as_captured();
  const CheckpointFile last = CheckpointFile::read(*files, "iter_10.pth");
  const CheckpointFile first = CheckpointFile::read(*files, "iter_1.pth");
  EXPECT_EQ(last.record()->identity.parent_id, first.record()->identity.save_id)
      << "a replaced save is nobody's parent";
}

// What was asked for by a person stays in the slot; the next save by interval waits for it.
TEST_F(BackPressureTest, ASaveOnDemandIsNeverReplaced) {
  CheckpointHookOptions options;
  options.interval = 2;
  options.by_epoch = false;
  options.save_last = false;
  options.on_busy = OnBusy::kReplace;
  run.parts.hooks.add(std::make_unique<CheckpointHook>(options));
  run.options.max_iters = 5;
  run.parts.storage =
      std::make_unique<test::ControlledStorage>(files, [this](std::string_view name) {
        if (name == "iter_2.pth") commit.enter();
      });
  run.parts.hooks.add(test::on_event<AfterTrainIter>(
      [this](const AfterTrainIter& e, RunContext&) {
        if (e.at.iter + 1 == 3) run.runner().checkpoint_now();
        // Iteration 4 is due; it can only go on when the slot is free.
        if (e.at.iter + 1 == 3) commit.wait_until_entered();
      },
      "Demand"));
  release_at<CheckpointCaptured>(2);  // of iter_3, on demand
  run.train();
  EXPECT_THAT(names(), ElementsAre("iter_2.pth", "iter_3.pth", "iter_4.pth"));
  EXPECT_EQ(count("replaced"), 0u);
  expect_files_as_captured();
}

TEST_F(BackPressureTest, AReplacedFileIsNotInTheListsOfLaterOnes) {
  CheckpointHookOptions options;
  options.interval = 1;
  options.by_epoch = false;
  options.on_busy = OnBusy::kReplace;
  options.max_keep_ckpts = 5;
  run.options.max_iters = 3;
  run.parts.hooks.add(std::make_unique<CheckpointHook>(options));
  release_at<CheckpointReplaced>(1);
  run.train();
  EXPECT_THAT(names(), ElementsAre("iter_1.pth", "iter_3.pth"));
  const CheckpointFile file = CheckpointFile::read(*files, "iter_3.pth");
  const auto* ids =
      file.root().find("message_hub")->find("runtime_info")->find("keep_ckpt_ids")->as_sequence();
  ASSERT_NE(ids, nullptr);
  ASSERT_THAT(*ids, SizeIs(2));
  EXPECT_EQ((*ids)[0].as_int(), 1);
  EXPECT_EQ((*ids)[1].as_int(), 3);
}

// A best that shares the bytes of a save by interval keeps that save from giving way.
TEST_F(BackPressureTest, ASaveThatABestNeedsIsNeverReplaced) {
  run.parts.val = loader(test::fake_dataset(4), {.batch_size = 2});
  run.parts.metrics.push_back(std::make_unique<Accuracy>());
  run.options.val_interval = 2;
  run.options.max_iters = 4;
  CheckpointHookOptions options;
  options.interval = 1;
  options.by_epoch = false;
  options.on_busy = OnBusy::kReplace;
  options.save_best = {"accuracy"};
  run.parts.hooks.add(std::make_unique<CheckpointHook>(options));
  // iter_2 waits in the slot when its validation makes it the best; iter_3 then waits for the slot.
  run.parts.hooks.add(test::on_event<AfterVal>(
      [this](const AfterVal&, RunContext&) { commit.release(); }, "Release"));
  run.train();
  EXPECT_THAT(names(), ::testing::Contains("iter_2.pth"));
  EXPECT_EQ(count("replaced iter_2.pth"), 0u);
  const auto best = test::read_all(*files, "best_accuracy_iter_2.pth");
  EXPECT_EQ(best, test::read_all(*files, "iter_2.pth"));
}

}  // namespace
}  // namespace millrace
