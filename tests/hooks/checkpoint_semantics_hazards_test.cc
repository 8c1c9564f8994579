// Checkpoint semantics: what is known to go wrong in the reference (2.9), and what happens here.
// Index: checkpoint_semantics_test.cc.
#include <gmock/gmock.h>

#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/message_hub.h"
#include "tests/hooks/checkpoint_scenario.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::SizeIs;

using Names = std::vector<std::string>;

// ---- two runs in one folder, the second with other options

struct ChangeRow {
  test::RowName name;
  test::Scenario first, second;
  Names files;
  const char* hub;
};
void PrintTo(const ChangeRow& row, std::ostream* out) { PrintTo(row.name, out); }

const ChangeRow kChanges[] = {
    {{"2.9.10", "files saved before a maximum was set stay"},
     {.hook = {.interval = 1}},
     {.hook = {.interval = 1, .max_keep_ckpts = 1}, .epochs = 5},
     {"epoch_1.pth", "epoch_2.pth", "epoch_3.pth", "epoch_5.pth"},
     "keep_ckpt_ids=[5] last_ckpt=epoch_5.pth"},
    {{"2.3.6", "files saved under a maximum stay when there is none"},
     {.hook = {.interval = 1, .max_keep_ckpts = 1}},
     {.hook = {.interval = 1}, .epochs = 5},
     {"epoch_3.pth", "epoch_4.pth", "epoch_5.pth"},
     "keep_ckpt_ids=[3] last_ckpt=epoch_5.pth"},
    {{"2.3.6", "a smaller maximum"},
     {.hook = {.interval = 1, .max_keep_ckpts = 3}},
     {.hook = {.interval = 1, .max_keep_ckpts = 1}, .epochs = 4},
     {"epoch_4.pth"},
     "keep_ckpt_ids=[4] last_ckpt=epoch_4.pth"},
    {{"2.3.6", "a larger maximum"},
     {.hook = {.interval = 1, .max_keep_ckpts = 1}},
     {.hook = {.interval = 1, .max_keep_ckpts = 2}, .epochs = 5},
     {"epoch_4.pth", "epoch_5.pth"},
     "keep_ckpt_ids=[4,5] last_ckpt=epoch_5.pth"},
    {{"2.9.24", "another template orphans nothing: ours"},
     {.hook = {.interval = 1, .max_keep_ckpts = 2}},
     {.hook = {.interval = 1, .max_keep_ckpts = 2, .filename_tmpl = "ck_{}.pth"}, .epochs = 5},
     {"ck_4.pth", "ck_5.pth"},
     "keep_ckpt_ids=[4,5] last_ckpt=ck_5.pth"},
    {{"2.9.12", "another metric starts afresh: ours"},
     {.hook = {.interval = 3, .save_best = {"acc"}},
      .scores = {{"acc", {0.8, 0.1, 0.1}}, {"psnr", {0, 0, 0}}}},
     {.hook = {.interval = 3, .save_best = {"psnr"}, .rule = {"greater"}},
      .epochs = 4,
      .scores = {{"acc", {0.1}}, {"psnr", {0.7}}}},
     {"best_acc_epoch_1.pth", "best_psnr_epoch_4.pth", "epoch_3.pth", "epoch_4.pth"},
     "best_ckpt=best_psnr_epoch_4.pth best_score=0.7000 last_ckpt=epoch_4.pth"},
    {{"2.9.12", "a metric keeps its history among several: ours"},
     {.hook = {.interval = 3, .save_best = {"acc"}},
      .scores = {{"acc", {0.8, 0.1, 0.1}}, {"loss", {3, 3, 3}}}},
     {.hook = {.interval = 3, .save_best = {"acc", "loss"}},
      .epochs = 4,
      .scores = {{"acc", {0.7}}, {"loss", {3}}}},
     {"best_acc_epoch_1.pth", "best_loss_epoch_4.pth", "epoch_3.pth", "epoch_4.pth"},
     "best_ckpt=best_acc_epoch_1.pth best_ckpt_acc=best_acc_epoch_1.pth "
     "best_ckpt_loss=best_loss_epoch_4.pth best_score=0.8000 best_score_acc=0.8000 "
     "best_score_loss=3.0000 last_ckpt=epoch_4.pth"},
    {{"2.9.20", "a best after a resume, long before a regular file is due"},
     {.hook = {.interval = 10, .save_best = {"acc"}},
      .epochs = 2,
      .scores = {{"acc", {1, 2, 3, 4, 3, 3}}}},
     {.hook = {.interval = 10, .save_last = false, .save_best = {"acc"}},
      .epochs = 5,
      .scores = {{"acc", {1, 2, 3, 4, 3, 3}}}},
     {"best_acc_epoch_4.pth", "epoch_2.pth"},
     "best_ckpt=best_acc_epoch_4.pth best_score=4.0000 last_ckpt=epoch_2.pth"},
};

class ChangeTable : public ::testing::TestWithParam<ChangeRow> {};
INSTANTIATE_TEST_SUITE_P(, ChangeTable, ::testing::ValuesIn(kChanges), test::NameOfRow());

TEST_P(ChangeTable, BetweenTwoRuns) {
  const ChangeRow& row = GetParam();
  test::Folder folder;
  folder.train(row.first);
  EXPECT_EQ(folder.error(), "");
  const auto run = folder.train(row.second, Resume::automatic());
  EXPECT_EQ(folder.error(), "");
  EXPECT_THAT(run->log->with("Resumed from"), SizeIs(1));
  EXPECT_THAT(folder.files(), ElementsAreArray(row.files));
  EXPECT_EQ(test::hub_text(run->runner().hub().python_state()), row.hub);
}

TEST(Hazard, 2_9_9_AFileRemovedByHandTakesNoSlot_Ours) {
  test::Folder folder;
  const test::Scenario scenario{.hook = {.interval = 1, .max_keep_ckpts = 3}};
  folder.train(scenario);
  std::filesystem::remove(folder.work_dir() / "epoch_2.pth");
  test::Scenario longer = scenario;
  longer.epochs = 4;
  folder.train(longer, Resume::automatic());
  EXPECT_THAT(folder.files(), ElementsAre("epoch_1.pth", "epoch_3.pth", "epoch_4.pth"));
}

TEST(Hazard, 2_9_20_ASecondResumeOrphansNothing) {
  test::Folder folder;
  test::Scenario scenario{.hook = {.interval = 10, .save_best = {"acc"}},
                          .epochs = 2,
                          .scores = {{"acc", {1, 2, 3, 4, 3, 5}}}};
  folder.train(scenario);
  for (const std::int64_t epochs : {4, 6}) {
    scenario.epochs = epochs;
    folder.train(scenario, Resume::automatic());
    EXPECT_EQ(folder.error(), "");
  }
  EXPECT_THAT(folder.files(),
              ElementsAre("best_acc_epoch_6.pth", "epoch_2.pth", "epoch_4.pth", "epoch_6.pth"));
}

// ---- 2.9.7, 2.9.24: places

TEST(Hazard, 2_9_7_AMovedWorkDirIsResumed_Ours) {
  test::Folder folder;
  test::Scenario scenario{.hook = {.interval = 1, .max_keep_ckpts = 2}, .epochs = 2};
  folder.train(scenario);
  std::filesystem::rename(folder.work_dir(), folder.root() / "moved");
  scenario.epochs = 3;
  const auto run = folder.make(scenario, Resume::automatic());
  run->options.work_dir = folder.root() / "moved";
  run->train();
  EXPECT_THAT(run->log->with("Resumed from"), ElementsAre(HasSubstr("moved/epoch_2.pth")));
  EXPECT_THAT(folder.files(folder.root() / "moved"), ElementsAre("epoch_2.pth", "epoch_3.pth"));
}

// The reference follows last_checkpoint, wherever it leads.
TEST(Hazard, 2_9_24_AnotherOutDirIsResumedThroughThePointer) {
  test::Folder folder;
  test::Scenario scenario{.hook = {.interval = 1, .max_keep_ckpts = 2}, .epochs = 2};
  folder.train(scenario);
  scenario.hook.out_dir = folder.root() / "out";
  scenario.epochs = 4;
  const auto run = folder.train(scenario, Resume::automatic());
  EXPECT_EQ(folder.error(), "");
  EXPECT_THAT(run->log->with("Resumed from"),
              ElementsAre(HasSubstr((folder.work_dir() / "epoch_2.pth").string())));
  EXPECT_THAT(folder.files(), ElementsAre("epoch_1.pth", "epoch_2.pth"))
      << "of the other folder, nothing is removed";
  EXPECT_THAT(folder.files(folder.root() / "out" / "run"),
              ElementsAre("epoch_3.pth", "epoch_4.pth"));
}

TEST(Hazard, 2_9_1_APointerToAFileThatIsGoneIsSaid_Ours) {
  test::Folder folder;
  test::Scenario scenario{.hook = {.out_dir = folder.root() / "out"}};
  folder.train(scenario);
  std::filesystem::remove_all(folder.root() / "out");
  scenario.hook.out_dir.clear();
  const auto run = folder.train(scenario, Resume::automatic());
  EXPECT_EQ(folder.error(), "");
  EXPECT_THAT(run->log->with("Skipped what last_checkpoint names"),
              ElementsAre(HasSubstr("out/run/epoch_3.pth: can not be found")));
  EXPECT_THAT(run->log->with("starting from scratch"), SizeIs(1));
}

// ---- refusals

TEST(Hazard, 2_9_14_TwoOfThemAreRefused_Ours) {
  test::Folder folder;
  const auto run = folder.make({});
  std::string error;
  try {
    run->parts.hooks.add(std::make_unique<CheckpointHook>(CheckpointHookOptions{}));
  } catch (const ConfigError& refused) {
    error = refused.what();
  }
  EXPECT_THAT(error, HasSubstr("hooks.CheckpointHook: a hook of this name is already there"));
}

TEST(Hazard, 2_9_18_SaveBestNeedsAValidation_Ours) {
  test::Folder folder;
  const auto run = folder.train({.hook = {.save_best = {"acc"}}});
  EXPECT_THAT(folder.error(), AllOf(HasSubstr("CheckpointHook.save_best"),
                                    HasSubstr("this run has none: give it val and metrics")));
  EXPECT_EQ(run->runner().progress().iter, 0);
}

TEST(Hazard, 2_9_23_AFileOfWeightsIsNotResumedSilently_Ours) {
  test::Folder folder;
  test::Scenario scenario{.hook = {.interval = 9, .save_best = {"acc"}, .save_best_full = false},
                          .scores = {{"acc", {1, 2, 1}}}};
  folder.train(scenario);
  const std::string best = (folder.work_dir() / "best_acc_epoch_2.pth").string();
  folder.train(scenario, Resume::from(best));
  EXPECT_THAT(folder.error(), AllOf(HasSubstr(best), HasSubstr("holds no optimizer state"),
                                    HasSubstr("use load_from")));
}

// ---- 2.9.28: ParamSchedulerHook comes before

TEST(Hazard, 2_9_28_AFileHoldsTheRateOfTheNextStep) {
  test::Folder folder;
  std::vector<double> rates;
  const auto run = folder.make({.hook = {.interval = 1}});
  run->parts.hooks.add(std::make_unique<test::TestHook>(
      [&rates](Subscriptions& on, RunContext& context) {
        on.every<BeforeTrainEpoch>([&rates, &context](const BeforeTrainEpoch&) {
          rates.push_back(context.strategy.learning_rates().front());
        });
      },
      "Rates"));
  run->train();
  ASSERT_THAT(rates, SizeIs(3));
  EXPECT_NE(rates[0], rates[1]);
  for (std::size_t epoch = 1; epoch < rates.size(); ++epoch) {
    const CheckpointFile file = folder.read("epoch_" + std::to_string(epoch) + ".pth");
    const auto* groups = file.root().find("optimizer")->find("param_groups")->as_sequence();
    EXPECT_EQ(groups->front().find("lr")->as_double(), rates[epoch]) << epoch;
  }
}

}  // namespace
}  // namespace millrace
