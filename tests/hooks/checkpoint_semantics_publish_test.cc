// Checkpoint semantics: what is published after training (2.7). How a file is reduced and named:
// publish_test. Index: checkpoint_semantics_test.cc.
#include <gmock/gmock.h>

#include <limits>
#include <stdexcept>

#include "millrace/io/local_storage.h"
#include "tests/hooks/checkpoint_scenario.h"
#include "tests/support/images.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::SizeIs;

using Names = std::vector<std::string>;

struct Row {
  test::RowName name;
  test::Scenario scenario;
  Names files;
  const char* published = "";  // one of them
  const char* content = "";
};
void PrintTo(const Row& row, std::ostream* out) { PrintTo(row.name, out); }

const Names kWeights = {"meta", "state_dict"};

const Row kRows[] = {
    {{"2.7.1", "nothing without published keys"},
     {.hook = {.save_best = {"acc"}}, .scores = {{"acc", {3, 2, 1}}}},
     {"best_acc_epoch_1.pth", "epoch_3.pth"}},
    {{"2.7.2", "the last file"},
     {.hook = {.interval = 2, .published_keys = kWeights}},
     {"epoch_2.pth", "epoch_3-HASH.pth", "epoch_3.pth"},
     "epoch_3-HASH.pth",
     "epoch 3 iter 12: meta state_dict"},
    {{"2.7.2", "not the last file without save last"},
     {.hook = {.interval = 1, .save_last = false, .published_keys = kWeights}},
     {"epoch_1.pth", "epoch_2.pth", "epoch_3.pth"}},
    {{"2.7.2", "the last file by iteration"},
     {.hook = {.interval = 4, .by_epoch = false, .published_keys = kWeights},
      .epochs = 0,
      .iters = 6},
     {"iter_4.pth", "iter_6-HASH.pth", "iter_6.pth"},
     "iter_6-HASH.pth",
     "epoch 0 iter 6: meta state_dict"},
    {{"2.7.2", "the last file when older ones go"},
     {.hook = {.interval = 1, .max_keep_ckpts = 1, .published_keys = kWeights}},
     {"epoch_3-HASH.pth", "epoch_3.pth"}},
    {{"2.7.2", "the last and the best"},
     {.hook =
          {.interval = 1, .save_best = {"acc"}, .max_keep_ckpts = 1, .published_keys = kWeights},
      .scores = {{"acc", {1, 2, 1}}}},
     {"best_acc_epoch_2-HASH.pth", "best_acc_epoch_2.pth", "epoch_3-HASH.pth", "epoch_3.pth"},
     "best_acc_epoch_2-HASH.pth",
     "epoch 2 iter 8: meta state_dict"},
    {{"2.7.2", "the best of the last step"},
     {.hook =
          {.interval = 1, .save_best = {"acc"}, .max_keep_ckpts = 1, .published_keys = kWeights},
      .scores = {{"acc", {1, 2, 3}}}},
     {"best_acc_epoch_3-HASH.pth", "best_acc_epoch_3.pth", "epoch_3-HASH.pth", "epoch_3.pth"}},
    {{"2.7.2", "the best alone"},
     {.hook = {.save_last = false, .save_best = {"acc"}, .published_keys = kWeights},
      .scores = {{"acc", {1, 2, 1}}}},
     {"best_acc_epoch_2-HASH.pth", "best_acc_epoch_2.pth"}},
    {{"2.7.2", "each best of several metrics"},
     {.hook = {.save_last = false, .save_best = {"acc", "loss"}, .published_keys = kWeights},
      .scores = {{"acc", {1, 2, 1}}, {"loss", {1, 2, 3}}}},
     {"best_acc_epoch_2-HASH.pth", "best_acc_epoch_2.pth", "best_loss_epoch_1-HASH.pth",
      "best_loss_epoch_1.pth"}},
    {{"2.7.2", "a metric that never improved is left out: ours"},
     {.hook = {.save_last = false, .save_best = {"acc", "loss"}, .published_keys = kWeights},
      .epochs = 1,
      .scores = {{"acc", {1}}, {"loss", {std::numeric_limits<double>::quiet_NaN()}}}},
     {"best_acc_epoch_1-HASH.pth", "best_acc_epoch_1.pth"}},
    {{"2.7.3", "one key"},
     {.hook = {.published_keys = {"state_dict"}}},
     {"epoch_3-HASH.pth", "epoch_3.pth"},
     "epoch_3-HASH.pth",
     "epoch none iter none: state_dict"},
    {{"2.7.3", "the keys of the file in any order"},
     {.hook = {.published_keys = {"optimizer", "state_dict", "meta"}}},
     {"epoch_3-HASH.pth", "epoch_3.pth"},
     "epoch_3-HASH.pth",
     "epoch 3 iter 12: meta optimizer state_dict"},
    {{"2.7.3", "a key that the file does not have is left out"},
     {.hook = {.published_keys = {"state_dict", "ema_state_dict"}}},
     {"epoch_3-HASH.pth", "epoch_3.pth"},
     "epoch_3-HASH.pth",
     "epoch none iter none: state_dict"},
    {{"2.7.4", "a stopped run publishes where it stopped: ours"},
     {.hook = {.published_keys = kWeights}, .stop_after = 6},
     {"iter_6-HASH.pth", "iter_6.pth"},
     "iter_6-HASH.pth",
     "epoch 1 iter 6: meta state_dict"},
};

class PublishTable : public ::testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(, PublishTable, ::testing::ValuesIn(kRows), test::NameOfRow());

TEST_P(PublishTable, LeavesTheseFiles) {
  const Row& row = GetParam();
  test::Folder folder;
  const auto run = folder.train(row.scenario);
  EXPECT_EQ(folder.error(), "");
  EXPECT_THAT(folder.files(), ElementsAreArray(row.files));
  std::size_t published = 0;
  for (const std::string& file : row.files) published += file.ends_with("-HASH.pth") ? 1 : 0;
  EXPECT_THAT(run->log->with(" is published to "), SizeIs(published));
  if (*row.published != '\0') {
    EXPECT_EQ(folder.content(row.published), row.content);
  }
}

TEST(Publish, 2_7_3_WhatTheLogSays) {
  test::Folder folder;
  const auto run = folder.train({.hook = {.published_keys = {"state_dict", "ema_state_dict"}}});
  const std::string removed = "['meta', 'message_hub', 'optimizer', 'param_schedulers']";
  EXPECT_THAT(run->log->with("Key "),
              ElementsAre(HasSubstr("Key " + removed +
                                    " will be removed because they are not found in "
                                    "published_keys. If you want to keep them, please set " +
                                    removed + " in published_keys")));
  EXPECT_THAT(run->log->with("is published to"),
              ElementsAre(AllOf(
                  HasSubstr("The checkpoint (" + (folder.work_dir() / "epoch_3.pth").string() +
                            ") is published to "),
                  HasSubstr((folder.work_dir() / "epoch_3-").string()))));
  EXPECT_THAT(run->log->with("'ema_state_dict'"),
              ElementsAre(HasSubstr("which published_keys asks for")));
}

TEST(Publish, 2_7_3_KeysOfWhichTheFileHasNoneAreAnErrorAtTheEnd_Ours) {
  test::Folder folder;
  folder.train({.hook = {.published_keys = {"state_dicts"}}});
  EXPECT_THAT(folder.error(), AllOf(HasSubstr("it has none of the keys to publish (state_dicts)"),
                                    HasSubstr("did you mean state_dict")));
  EXPECT_THAT(folder.files(), ElementsAre("epoch_3.pth"));
}

TEST(Publish, 2_7_4_TheSameFileIsPublishedUnderTheSameName_Ours) {
  test::Folder folder;
  const auto run = folder.train({.hook = {.published_keys = kWeights}});
  const Names once = test::names_of(LocalStorage(folder.work_dir()));
  run->train();
  EXPECT_THAT(run->log->with(" is published to "), SizeIs(2));
  EXPECT_THAT(test::names_of(LocalStorage(folder.work_dir())), ElementsAreArray(once));
}

TEST(Publish, 2_7_4_NothingAfterAnException) {
  test::Folder folder;
  const auto run = folder.make({.hook = {.interval = 1, .published_keys = kWeights}});
  run->strategy->on_forward = [steps = 0]() mutable {
    if (++steps == 10) throw std::runtime_error("out of memory");
  };
  EXPECT_ANY_THROW(run->train());
  EXPECT_THAT(folder.files(), ElementsAre("epoch_1.pth", "epoch_2.pth"));
}

// The last file is known to the process that saved it; the best comes back with the checkpoint.
TEST(Publish, 2_3_ARunResumedAtItsEndPublishesTheBestOnly) {
  test::Folder folder;
  test::Scenario scenario{.hook = {.interval = 1, .save_best = {"acc"}, .max_keep_ckpts = 1},
                          .scores = {{"acc", {1, 2, 1}}}};
  folder.train(scenario);
  scenario.hook.published_keys = kWeights;
  folder.train(scenario, Resume::automatic());
  EXPECT_EQ(folder.error(), "");
  EXPECT_THAT(folder.files(),
              ElementsAre("best_acc_epoch_2-HASH.pth", "best_acc_epoch_2.pth", "epoch_3.pth"));
}

}  // namespace
}  // namespace millrace
