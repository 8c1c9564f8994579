// Checkpoint semantics: the best files (2.6). Index: checkpoint_semantics_test.cc.
#include <gmock/gmock.h>

#include <algorithm>
#include <limits>

#include "tests/hooks/checkpoint_scenario.h"

namespace millrace {
namespace {

using ::testing::Contains;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::SizeIs;

using Names = std::vector<std::string>;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// ---- 2.6: which files there are in the end, and how often a new best was said

struct Row {
  test::RowName name;
  test::Scenario scenario;
  std::size_t bests;
  Names files;
  std::string line = {};  // one of those of a new best
};
void PrintTo(const Row& row, std::ostream* out) { PrintTo(row.name, out); }

// save_best of regular steps, or with interval 9 of steps of their own.
CheckpointHookOptions best_of(std::vector<std::string> metrics, std::vector<std::string> rules = {},
                              std::int64_t interval = 9) {
  return {.interval = interval,
          .save_last = false,
          .save_best = std::move(metrics),
          .rule = std::move(rules)};
}

const Row kRows[] = {
    {{"2.6.2", "no save best, no best file"},
     {.hook = {.interval = 1}, .epochs = 1, .scores = {{"acc", {0.5}}}},
     0,
     {"epoch_1.pth"}},
    // 2.6.3: numbers
    {{"2.6.3", "the number of finished epochs"},
     {.hook = best_of({"acc"}), .scores = {{"acc", {0.25, 0.5, 0.125}}}},
     2,
     {"best_acc_epoch_2.pth"},
     "The best checkpoint with 0.5000 acc at 2 epoch is saved to best_acc_epoch_2.pth."},
    {{"2.6.3", "the number of finished iterations"},
     {.hook = {.by_epoch = false, .save_last = false, .save_best = {"acc"}},
      .epochs = 0,
      .iters = 9,
      .scores = {{"acc", {0.25, 0.5, 0.125}}},
      .val_interval = 3},
     2,
     {"best_acc_iter_6.pth"},
     "The best checkpoint with 0.5000 acc at 6 iter is saved to best_acc_iter_6.pth."},
    {{"2.6.3", "of iterations in a run of epochs"},
     {.hook = {.by_epoch = false, .save_last = false, .save_best = {"acc"}},
      .epochs = 2,
      .scores = {{"acc", {0.25, 0.5}}}},
     2,
     {"best_acc_iter_8.pth"},
     "The best checkpoint with 0.5000 acc at 8 iter is saved to best_acc_iter_8.pth."},
    {{"2.9.15", "of epochs in a run of iterations goes by the iteration: ours"},
     {.hook = best_of({"acc"}),
      .epochs = 0,
      .iters = 6,
      .scores = {{"acc", {0.25, 0.5}}},
      .val_interval = 3},
     2,
     {"best_acc_iter_6.pth"},
     "The best checkpoint with 0.5000 acc at 6 iter is saved to best_acc_iter_6.pth."},
    {{"2.6.3", "validations that begin late and are rare"},
     {.hook = best_of({"acc"}),
      .epochs = 5,
      .scores = {{"acc", {0.25, 0.5}}},
      .val_begin = 3,
      .val_interval = 4},
     2,
     {"best_acc_epoch_5.pth"}},
    // 2.6.4: auto
    {{"2.6.4", "auto is the first metric, with its rule"},
     {.hook = best_of({"auto"}), .scores = {{"loss", {2, 3, 1}}, {"acc", {0.5, 0.75, 0.25}}}},
     2,
     {"best_loss_epoch_3.pth"}},
    {{"2.6.4", "auto with a rule"},
     {.hook = best_of({"auto"}, {"greater"}), .scores = {{"loss", {2, 3, 1}}}},
     2,
     {"best_loss_epoch_2.pth"}},
    {{"2.6.4", "auto beside regular files"},
     {.hook = best_of({"auto"}, {}, 2), .scores = {{"acc", {0.5, 0.25, 0.75}}}},
     2,
     {"best_acc_epoch_3.pth", "epoch_2.pth"}},
    // 2.6.5.3: what is better
    {{"2.6.5.3", "the first score is always better"},
     {.hook = best_of({"acc"}), .epochs = 1, .scores = {{"acc", {-1e30}}}},
     1,
     {"best_acc_epoch_1.pth"}},
    {{"2.6.5.3", "worse is not"},
     {.hook = best_of({"acc"}), .scores = {{"acc", {0.5, 0.25, 0.375}}}},
     1,
     {"best_acc_epoch_1.pth"}},
    {{"2.6.5.3", "of equal scores the earliest"},
     {.hook = best_of({"acc"}), .scores = {{"acc", {0.5, 0.5, 0.5}}}},
     1,
     {"best_acc_epoch_1.pth"}},
    {{"2.6.5.3", "less is better for a loss"},
     {.hook = best_of({"loss"}), .scores = {{"loss", {2, 1, 1}}}},
     2,
     {"best_loss_epoch_2.pth"}},
    {{"2.6.5.3", "a rule of the user wins over the name"},
     {.hook = best_of({"acc"}, {"less"}), .scores = {{"acc", {0.5, 0.25, 0.75}}}},
     2,
     {"best_acc_epoch_2.pth"}},
    {{"2.6.5.3", "a rule for a name without one"},
     {.hook = best_of({"psnr"}, {"greater"}), .scores = {{"psnr", {20, 21, 19}}}},
     2,
     {"best_psnr_epoch_2.pth"}},
    {{"2.6.5.3", "keys of the user"},
     {.hook = {.save_last = false, .save_best = {"psnr_y"}, .greater_keys = {"PSNR"}},
      .scores = {{"psnr_y", {20, 21, 19}}}},
     2,
     {"best_psnr_y_epoch_2.pth"}},
    {{"2.9.17", "NaN is never best and blocks nothing"},
     {.hook = best_of({"acc"}), .scores = {{"acc", {kNaN, 0.5, kNaN}}}},
     1,
     {"best_acc_epoch_2.pth"}},
    {{"2.9.17", "NaN is not less either"},
     {.hook = best_of({"loss"}), .scores = {{"loss", {kNaN, 2, kNaN}}}},
     1,
     {"best_loss_epoch_2.pth"}},
    {{"2.9.17", "infinity is best, and nothing beats it"},
     {.hook = best_of({"acc"}), .scores = {{"acc", {0.5, kInfinity, 1e308}}}},
     2,
     {"best_acc_epoch_2.pth"}},
    {{"2.9.17", "minus infinity is no first score"},
     {.hook = best_of({"acc"}), .epochs = 1, .scores = {{"acc", {-kInfinity}}}},
     0,
     {}},
    {{"2.9.17", "infinity is no first loss"},
     {.hook = best_of({"loss"}), .scores = {{"loss", {kInfinity, 3, kInfinity}}}},
     1,
     {"best_loss_epoch_2.pth"}},
    // 2.6.5: several
    {{"2.6.5", "each metric has its own best"},
     {.hook = best_of({"acc", "loss"}),
      .scores = {{"acc", {0.25, 0.5, 0.125}}, {"loss", {1, 2, 0.5}}}},
     4,
     {"best_acc_epoch_2.pth", "best_loss_epoch_3.pth"},
     "The best checkpoint with 0.5000 loss at 3 epoch is saved to best_loss_epoch_3.pth."},
    {{"2.6.5", "one rule for all"},
     {.hook = best_of({"a", "b"}, {"less"}), .scores = {{"a", {3, 2, 1}}, {"b", {1, 2, 3}}}},
     4,
     {"best_a_epoch_3.pth", "best_b_epoch_1.pth"}},
    {{"2.6.5", "a rule each"},
     {.hook = best_of({"a", "b"}, {"less", "greater"}),
      .scores = {{"a", {3, 2, 1}}, {"b", {3, 2, 1}}}},
     4,
     {"best_a_epoch_3.pth", "best_b_epoch_1.pth"}},
    {{"2.6.5", "a metric that is not followed is nobody's best"},
     {.hook = best_of({"acc"}), .scores = {{"loss", {3, 2, 1}}, {"acc", {3, 2, 1}}}},
     1,
     {"best_acc_epoch_1.pth"}},
    // 2.6.5.6: names
    {{"2.6.5.6", "slashes become underscores"},
     {.hook = best_of({"coco/bbox/mAP"}), .epochs = 1, .scores = {{"coco/bbox/mAP", {0.5}}}},
     1,
     {"best_coco_bbox_mAP_epoch_1.pth"},
     "The best checkpoint with 0.5000 coco/bbox/mAP at 1 epoch is saved to "
     "best_coco_bbox_mAP_epoch_1.pth."},
    {{"2.6.5.6", "the template is part of the name"},
     {.hook = {.save_last = false, .save_best = {"acc"}, .filename_tmpl = "ck_{}.pth"},
      .epochs = 1,
      .scores = {{"acc", {0.5}}}},
     1,
     {"best_acc_ck_1.pth"}},
    {{"2.6.5.9", "four digits"},
     {.hook = best_of({"acc"}), .epochs = 1, .scores = {{"acc", {2.0 / 3}}}},
     1,
     {"best_acc_epoch_1.pth"},
     "The best checkpoint with 0.6667 acc at 1 epoch is saved to best_acc_epoch_1.pth."},
    // 2.6.6: no refresh
    {{"2.6.6", "a best on a step that is not due writes no regular file: ours"},
     {.hook = {.interval = 2, .save_best = {"acc"}},
      .epochs = 6,
      .scores = {{"acc", {1, 2, 3, 4, 5, 5}}}},
     5,
     {"best_acc_epoch_5.pth", "epoch_2.pth", "epoch_4.pth", "epoch_6.pth"}},
    {{"2.6.6", "nor does it take a slot: ours"},
     {.hook = {.interval = 2, .save_best = {"acc"}, .max_keep_ckpts = 2},
      .epochs = 5,
      .scores = {{"acc", {1, 2, 3, 2, 1}}}},
     3,
     {"best_acc_epoch_3.pth", "epoch_4.pth", "epoch_5.pth"}},
    {{"2.9.21", "interval minus 1: the best one and the last one"},
     {.hook = {.save_best = {"acc"}}, .scores = {{"acc", {1, 2, 1}}}},
     2,
     {"best_acc_epoch_2.pth", "epoch_3.pth"}},
    {{"2.9.21", "save begin does not hold back a best"},
     {.hook = {.interval = 1, .save_begin = 3, .save_best = {"acc"}},
      .scores = {{"acc", {2, 1, 1}}}},
     1,
     {"best_acc_epoch_1.pth", "epoch_3.pth"}},
};

class BestTable : public ::testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(, BestTable, ::testing::ValuesIn(kRows), test::NameOfRow());

std::size_t best_files(const Names& files) {
  const auto is_best = [](const std::string& file) { return file.starts_with("best_"); };
  return static_cast<std::size_t>(std::count_if(files.begin(), files.end(), is_best));
}

TEST_P(BestTable, LeavesTheseFiles) {
  // Weights in a file of their own, or a second name for a full one: the same names.
  for (const bool full : {false, true}) {
    SCOPED_TRACE(full ? "full" : "weights");
    const Row& row = GetParam();
    test::Scenario scenario = row.scenario;
    scenario.hook.save_best_full = full;
    test::Folder folder;
    const auto run = folder.train(scenario);
    EXPECT_EQ(folder.error(), "");
    EXPECT_THAT(folder.files(), ElementsAreArray(row.files));
    const Names lines = run->log->with("The best checkpoint with");
    ASSERT_THAT(lines, SizeIs(row.bests));
    EXPECT_THAT(run->log->with("The previous best checkpoint"),
                SizeIs(row.bests - best_files(row.files)));
    if (!row.line.empty()) {
      EXPECT_THAT(lines, Contains(HasSubstr(row.line)));
    }
  }
}

// ---- 2.6.5.8: what a best file holds

struct ContentRow {
  test::RowName name;
  CheckpointHookOptions hook;
  const char* content;  // of the best file of epoch 2
};
void PrintTo(const ContentRow& row, std::ostream* out) { PrintTo(row.name, out); }

const ContentRow kContents[] = {
    {{"2.6.5.8", "weights of a step of their own"},
     {.save_last = false, .save_best = {"acc"}, .save_best_full = false},
     "epoch 2 iter 8: message_hub meta state_dict"},
    {{"2.6.5.8", "weights of a saved step"},
     {.interval = 1, .save_best = {"acc"}, .save_best_full = false},
     "epoch 2 iter 8: message_hub meta state_dict"},
    {{"2.6.5.8", "one full file: ours"},
     {.save_last = false, .save_best = {"acc"}},
     "epoch 2 iter 8: message_hub meta optimizer param_schedulers state_dict"},
    {{"2.6.5.8", "a second name of the regular file: ours"},
     {.interval = 1, .save_best = {"acc"}},
     "epoch 2 iter 8: message_hub meta optimizer param_schedulers state_dict"},
    {{"2.6.5.8", "which holds what regular files hold: ours"},
     {.interval = 1, .save_optimizer = false, .save_param_scheduler = false, .save_best = {"acc"}},
     "epoch 2 iter 8: message_hub meta state_dict"},
};

class ContentTable : public ::testing::TestWithParam<ContentRow> {};
INSTANTIATE_TEST_SUITE_P(, ContentTable, ::testing::ValuesIn(kContents), test::NameOfRow());

TEST_P(ContentTable, OfABestFile) {
  test::Folder folder;
  folder.train({.hook = GetParam().hook, .epochs = 2, .scores = {{"acc", {0.25, 0.5}}}});
  EXPECT_EQ(folder.error(), "");
  EXPECT_EQ(folder.content("best_acc_epoch_2.pth"), GetParam().content);
}

}  // namespace
}  // namespace millrace
