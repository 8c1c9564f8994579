// save_best beyond what the recorded runs show: no bytes for a best on a saved step, one full file
// on another step, several metrics, the best K, resuming in between, and what goes wrong.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "millrace/events/checkpoint_events.h"
#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/io/local_storage.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/engine/message_hub.h"
#include "tests/support/controlled_storage.h"
#include "tests/support/fake_run.h"
#include "tests/support/hold.h"
#include "tests/support/images.h"
#include "tests/support/object_storage.h"
#include "tests/support/scripted_metric.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

std::vector<std::string> checkpoints(const Storage& storage) {
  std::vector<std::string> names;
  for (const std::string& name : test::names_of(storage)) {
    if (name.ends_with(".pth")) names.push_back(name);
  }
  return names;
}

struct BestTest : ::testing::Test {
  std::filesystem::path folder() const { return dir.path() / "run"; }
  // A run whose validations give these scores, one an epoch.
  std::unique_ptr<test::FakeRun> make(
      CheckpointHookOptions options,
      std::vector<std::pair<std::string, std::vector<double>>> scores, std::int64_t epochs) {
    auto run = std::make_unique<test::FakeRun>(folder());
    run->options.max_epochs = epochs;
    run->parts.val = loader(test::fake_dataset(4), {.batch_size = 2});
    for (auto& [name, values] : scores) {
      run->parts.metrics.push_back(std::make_unique<test::ScriptedMetric>(name, values));
    }
    run->parts.hooks.add(std::make_unique<CheckpointHook>(std::move(options)));
    run->parts.hooks.add(test::on_event<CheckpointCommitted>(
        [this](const CheckpointCommitted& e, RunContext&) { rows.push_back(e.row); }, "Rows"));
    return run;
  }
  const CheckpointRow& row(const std::string& name) const {
    for (const CheckpointRow& each : rows) {
      if (each.name == name) return each;
    }
    throw std::out_of_range(name);
  }
  std::vector<std::string> names() const { return checkpoints(LocalStorage(folder())); }
  ino_t inode(const std::string& name) const {
    struct stat status {};
    EXPECT_EQ(::stat((folder() / name).c_str(), &status), 0) << name;
    return status.st_ino;
  }

  test::TempDir dir;
  std::vector<CheckpointRow> rows;
};

TEST_F(BestTest, OnASavedStepItIsASecondNameAndCostsNoByte) {
  const auto run = make({.interval = 1, .save_best = {"acc"}}, {{"acc", {0.1, 0.5, 0.3}}}, 3);
  run->train();
  EXPECT_THAT(names(),
              ElementsAre("best_acc_epoch_2.pth", "epoch_1.pth", "epoch_2.pth", "epoch_3.pth"));
  EXPECT_EQ(inode("best_acc_epoch_2.pth"), inode("epoch_2.pth"));
  EXPECT_EQ(row("best_acc_epoch_2.pth").written, 0u);
  EXPECT_EQ(row("best_acc_epoch_2.pth").mode, "link");
  EXPECT_EQ(row("best_acc_epoch_2.pth").reason, "best");
  EXPECT_THAT(
      run->log->with("The best checkpoint with"),
      UnorderedElementsAre(HasSubstr("The best checkpoint with 0.1000 acc at 1 epoch is saved to "
                                     "best_acc_epoch_1.pth."),
                           HasSubstr("The best checkpoint with 0.5000 acc at 2 epoch is saved to "
                                     "best_acc_epoch_2.pth.")));
  EXPECT_THAT(run->log->with("The previous best checkpoint"),
              ElementsAre(HasSubstr("best_acc_epoch_1.pth is removed")));
  EXPECT_EQ(run->runner().hub().find_info("best_score")->as_double(), 0.5);
  EXPECT_THAT(*run->runner().hub().find_info("best_ckpt")->as_string(),
              HasSubstr("/best_acc_epoch_2.pth"));
}

TEST_F(BestTest, TheBestOutlivesTheRegularFileWhoseBytesItShares) {
  make({.interval = 1, .save_best = {"acc"}, .max_keep_ckpts = 1}, {{"acc", {0.9, 0.1, 0.2}}}, 3)
      ->train();
  EXPECT_THAT(names(), ElementsAre("best_acc_epoch_1.pth", "epoch_3.pth"));
  const CheckpointFile best = CheckpointFile::read(LocalStorage(folder()), "best_acc_epoch_1.pth");
  EXPECT_EQ(best.record()->identity.epoch, 1);
}

TEST_F(BestTest, OnAnotherStepItIsOneFullFile) {
  make({.interval = 3, .save_last = false, .save_best = {"acc"}}, {{"acc", {0.1, 0.5, 0.3, 0.2}}},
       4)
      ->train();
  EXPECT_THAT(names(), ElementsAre("best_acc_epoch_2.pth", "epoch_3.pth"))
      << "no regular file is written for it";
  const CheckpointFile best = CheckpointFile::read(LocalStorage(folder()), "best_acc_epoch_2.pth");
  EXPECT_NE(best.root().find("optimizer"), nullptr);
  EXPECT_THAT(test::read_text(LocalStorage(folder()), "last_checkpoint"),
              HasSubstr("/epoch_3.pth"));
}

// A full best that is newer than every regular file is where a run goes on.
TEST_F(BestTest, AFullBestIsResumedFrom) {
  make({.interval = 4, .save_last = false, .save_best = {"acc"}}, {{"acc", {0.1, 0.5, 0.3}}}, 3)
      ->train();
  EXPECT_THAT(names(), ElementsAre("best_acc_epoch_2.pth"));
  const auto resumed = make({.interval = 1, .save_best = {"acc"}}, {{"acc", {0.4, 0.6}}}, 4);
  resumed->options.resume = Resume::automatic();
  resumed->train();
  EXPECT_THAT(resumed->log->with("Resumed from"),
              ElementsAre(AllOf(HasSubstr("best_acc_epoch_2.pth"), HasSubstr("epoch: 2"))));
  EXPECT_THAT(names(), ElementsAre("best_acc_epoch_4.pth", "epoch_3.pth", "epoch_4.pth"))
      << "0.4 does not beat 0.5, 0.6 does";
}

TEST_F(BestTest, WeightsOnlyAsTheReferenceIsAFileOfItsOwnThatIsNotResumedFrom) {
  make({.interval = 2, .save_last = false, .save_best = {"acc"}, .save_best_full = false},
       {{"acc", {0.1, 0.5, 0.9}}}, 3)
      ->train();
  EXPECT_THAT(names(), ElementsAre("best_acc_epoch_3.pth", "epoch_2.pth"));
  const CheckpointFile best = CheckpointFile::read(LocalStorage(folder()), "best_acc_epoch_3.pth");
  EXPECT_EQ(best.root().find("optimizer"), nullptr);
  const auto resumed = make({.interval = 2}, {{"acc", {0.1}}}, 4);
  resumed->options.resume = Resume::automatic();
  resumed->train();
  EXPECT_THAT(resumed->log->with("Resumed from"), ElementsAre(HasSubstr("epoch_2.pth")));
}

TEST_F(BestTest, SeveralMetricsOnOneUnsavedStepShareOneFile) {
  make({.interval = -1, .save_last = false, .save_best = {"acc", "loss"}},
       {{"acc", {0.1, 0.5}}, {"loss", {3, 2}}}, 2)
      ->train();
  EXPECT_THAT(names(), ElementsAre("best_acc_epoch_2.pth", "best_loss_epoch_2.pth"));
  EXPECT_EQ(inode("best_acc_epoch_2.pth"), inode("best_loss_epoch_2.pth"));
  EXPECT_EQ(row("best_loss_epoch_2.pth").written, 0u);
}

TEST_F(BestTest, TheBestK) {
  make({.interval = 1, .save_best = {"acc"}, .keep_best = 2, .max_keep_ckpts = 1},
       {{"acc", {0.1, 0.5, 0.3, 0.4, 0.2}}}, 5)
      ->train();
  EXPECT_THAT(names(), ElementsAre("best_acc_epoch_2.pth", "best_acc_epoch_4.pth", "epoch_5.pth"));
}

TEST_F(BestTest, AutoIsTheFirstMetricAndStaysItAfterAResume) {
  make({.interval = 1, .save_best = {"auto"}}, {{"loss", {3, 4}}, {"acc", {0.1, 0.2}}}, 2)->train();
  EXPECT_THAT(names(), ::testing::Contains("best_loss_epoch_1.pth"));
  const auto resumed =
      make({.interval = 1, .save_best = {"auto"}}, {{"acc", {0.5}}, {"loss", {2}}}, 3);
  resumed->options.resume = Resume::automatic();
  resumed->train();
  EXPECT_THAT(names(),
              ElementsAre("best_loss_epoch_3.pth", "epoch_1.pth", "epoch_2.pth", "epoch_3.pth"));
}

// ---- resuming: the score of a state comes after its file, so the file cannot know it

TEST_F(BestTest, AScoreThatCameAfterTheFileIsRememberedByTheCatalog) {
  make({.interval = 1, .save_best = {"acc"}}, {{"acc", {0.1, 0.8}}}, 2)->train();
  const auto resumed = make({.interval = 1, .save_best = {"acc"}}, {{"acc", {0.5, 0.9}}}, 4);
  resumed->options.resume = Resume::automatic();
  resumed->train();
  EXPECT_THAT(resumed->log->with("The best checkpoint with"),
              ElementsAre(HasSubstr("0.9000 acc at 4 epoch")));
  EXPECT_THAT(names(), ElementsAre("best_acc_epoch_4.pth", "epoch_1.pth", "epoch_2.pth",
                                   "epoch_3.pth", "epoch_4.pth"));
}

TEST_F(BestTest, ALinkThatACrashPreventedIsMadeByTheNextRun) {
  make({.interval = 1, .save_best = {"acc"}}, {{"acc", {0.1, 0.8}}}, 2)->train();
  // As if the process had died between the score and the link.
  LocalStorage(folder()).retire("best_acc_epoch_2.pth");
  const auto resumed = make({.interval = 1, .save_best = {"acc"}}, {{"acc", {0.5}}}, 3);
  resumed->options.resume = Resume::automatic();
  resumed->train();
  EXPECT_THAT(names(),
              ElementsAre("best_acc_epoch_2.pth", "epoch_1.pth", "epoch_2.pth", "epoch_3.pth"));
}

// Of the state that is resumed from, the best file is there already.
TEST_F(BestTest, AResumeMakesNoBestTwice) {
  const CheckpointHookOptions options{.interval = 1, .save_best = {"acc"}, .keep_best = 2};
  make(options, {{"acc", {0.1, 0.8}}}, 2)->train();
  rows.clear();
  const auto resumed = make(options, {{"acc", {0.5}}}, 3);
  resumed->options.resume = Resume::automatic();
  resumed->train();
  std::vector<std::string> made;
  for (const CheckpointRow& each : rows) made.push_back(each.name);
  EXPECT_THAT(made, ElementsAre("epoch_3.pth", "best_acc_epoch_3.pth"));
}

TEST_F(BestTest, WithoutTheCatalogABestWhoseScoreIsUnknownIsKept) {
  make({.interval = 1, .save_best = {"acc"}}, {{"acc", {0.1, 0.8}}}, 2)->train();
  std::filesystem::remove(folder() / Catalog::kName);
  const auto resumed = make({.interval = 1, .save_best = {"acc"}}, {{"acc", {0.5}}}, 3);
  resumed->options.resume = Resume::automatic();
  resumed->train();
  EXPECT_THAT(names(), ::testing::IsSupersetOf({"best_acc_epoch_2.pth", "best_acc_epoch_3.pth"}))
      << "0.5 beats 0.1, which the file of epoch 2 still knew";
}

TEST_F(BestTest, AnotherRunsBestFileIsNeverRemoved) {
  make({.interval = 1, .save_best = {"acc"}}, {{"acc", {0.1, 0.8}}}, 2)->train();
  test::FakeRun other(dir.path() / "other");
  other.options.max_epochs = 4;
  other.options.resume = Resume::from((folder() / "epoch_2.pth").string());
  other.parts.val = loader(test::fake_dataset(4), {.batch_size = 2});
  other.parts.metrics.push_back(
      std::make_unique<test::ScriptedMetric>("acc", std::vector<double>{0.05, 0.9}));
  other.parts.hooks.add(
      std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1, .save_best = {"acc"}}));
  other.train();
  EXPECT_THAT(names(), ::testing::Contains("best_acc_epoch_2.pth"));
  EXPECT_THAT(checkpoints(LocalStorage(dir.path() / "other")),
              ElementsAre("best_acc_epoch_4.pth", "epoch_3.pth", "epoch_4.pth"))
      << "0.05 does not beat the 0.1 that the file knew";
}

// ---- what goes wrong

std::string error_of(test::FakeRun& run) {
  try {
    run.train();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(BestTest, AMetricThatNobodyGivesIsFoundBeforeTraining) {
  const auto run = make({.interval = 1, .save_best = {"accuracy/top1"}},
                        {{"accuracy/top", {0.1}}, {"loss", {1}}}, 2);
  EXPECT_THAT(error_of(*run), AllOf(HasSubstr("gives no metric 'accuracy/top1'"),
                                    HasSubstr("accuracy/top, loss"), HasSubstr("did you mean")));
  EXPECT_EQ(run->runner().progress().iter, 0);
}

TEST_F(BestTest, ItNeedsAValidation) {
  test::FakeRun run(folder());
  run.options.max_epochs = 1;
  run.parts.hooks.add(
      std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1, .save_best = {"acc"}}));
  EXPECT_THAT(error_of(run), HasSubstr("needs scores of a validation"));
}

TEST_F(BestTest, AFailedBestIsNoBest) {
  auto files = std::make_shared<MemoryStorage>();
  const auto run =
      make({.interval = -1, .save_last = false, .save_best = {"acc"}, .mode = StageMode::kBlocking},
           {{"acc", {0.1, 0.8, 0.5}}}, 3);
  run->parts.storage = std::make_unique<test::ControlledStorage>(files, [](std::string_view name) {
    if (name == "best_acc_epoch_2.pth") throw StorageError("write", std::string(name), EIO);
  });
  EXPECT_THAT(error_of(*run), HasSubstr("best_acc_epoch_2.pth"));
  EXPECT_THAT(checkpoints(*files), ElementsAre("best_acc_epoch_3.pth"))
      << "0.5 beats 0.1, which is what there is a file of";
}

// The newer best was still on its way when training ended, and failed.
TEST_F(BestTest, WhenTheLastBestFailsTheOneBeforeItIsPublished) {
  auto files = std::make_shared<MemoryStorage>();
  test::Hold commit;
  CheckpointHookOptions options{.interval = -1, .save_last = false, .save_best = {"acc"}};
  options.published_keys = {"state_dict"};
  const auto run = make(options, {{"acc", {0.1, 0.8}}}, 2);
  run->parts.storage = std::make_unique<test::ControlledStorage>(files, [&](std::string_view name) {
    if (name != "best_acc_epoch_2.pth") return;
    commit.enter();
    throw StorageError("write", std::string(name), EIO);
  });
  run->parts.hooks.add(test::on_event<AfterTrain>(
      [&](const AfterTrain&, RunContext&) { commit.release(); }, "Release"));
  EXPECT_THAT(error_of(*run), HasSubstr("best_acc_epoch_2.pth"));
  EXPECT_THAT(run->log->with(" is published to "), ElementsAre(HasSubstr("best_acc_epoch_1.pth")));
}

TEST_F(BestTest, WithoutLinksItIsACopy) {
  auto storage = std::make_shared<test::ObjectStorage>();
  make({.interval = 1, .save_best = {"acc"}, .out_storage = storage}, {{"acc", {0.1, 0.5}}}, 2)
      ->train();
  EXPECT_THAT(checkpoints(*storage),
              ElementsAre("best_acc_epoch_2.pth", "epoch_1.pth", "epoch_2.pth"));
  EXPECT_EQ(row("best_acc_epoch_2.pth").mode, "copy");
  EXPECT_EQ(row("best_acc_epoch_2.pth").written, row("epoch_2.pth").bytes);
  EXPECT_EQ(test::read_all(*storage, "best_acc_epoch_2.pth"),
            test::read_all(*storage, "epoch_2.pth"));
}

}  // namespace
}  // namespace millrace
