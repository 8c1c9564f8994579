// Checkpoint semantics: when a regular file is saved (2.4), and what it is: its name, counters,
// content, and which ones stay (2.5). Index: checkpoint_semantics_test.cc.
#include <gmock/gmock.h>

#include "millrace/hooks/checkpoint_hook.h"
#include "tests/hooks/checkpoint_scenario.h"

namespace millrace {
namespace {

using ::testing::ElementsAreArray;
using ::testing::SizeIs;

// ---- 2.4: the arithmetic

struct DueRow {
  test::RowName name;
  std::int64_t interval, begin;
  std::vector<std::int64_t> steps;  // of 1 to 11
};
void PrintTo(const DueRow& row, std::ostream* out) { PrintTo(row.name, out); }

const DueRow kDue[] = {
    {{"2.4", "interval 2"}, 2, 0, {2, 4, 6, 8, 10}},
    {{"2.4", "interval 2 from 1"}, 2, 1, {1, 3, 5, 7, 9, 11}},
    {{"2.4", "interval 2 from 2"}, 2, 2, {2, 4, 6, 8, 10}},
    {{"2.4", "interval 2 from 5"}, 2, 5, {5, 7, 9, 11}},
    {{"2.4", "interval 3 from 4, which is no multiple"}, 3, 4, {4, 7, 10}},
    {{"2.4", "interval 1 from 10"}, 1, 10, {10, 11}},
    {{"2.4", "a begin after the end"}, 1, 12, {}},
    {{"2.4", "an interval beyond the end"}, 20, 0, {}},
    {{"2.4", "an interval beyond the end still has its begin"}, 20, 6, {6}},
    {{"2.4", "interval 0 never"}, 0, 3, {}},
    {{"2.4", "interval minus 1 never"}, -1, 0, {}},
    {{"2.4", "interval minus 2 never, whatever the begin"}, -2, 2, {}},
};

class DueTable : public ::testing::TestWithParam<DueRow> {};
INSTANTIATE_TEST_SUITE_P(, DueTable, ::testing::ValuesIn(kDue), test::NameOfRow());

TEST_P(DueTable, SavesAtTheseSteps) {
  for (const bool by_epoch : {true, false}) {
    const CheckpointHook hook(
        {.interval = GetParam().interval, .by_epoch = by_epoch, .save_begin = GetParam().begin});
    std::vector<std::int64_t> steps;
    for (std::int64_t step = 1; step <= 11; ++step) {
      if (hook.due(step)) steps.push_back(step);
    }
    EXPECT_THAT(steps, ElementsAreArray(GetParam().steps)) << "by_epoch " << by_epoch;
  }
}

// ---- 2.4 and 2.5: runs

struct Row {
  test::RowName name;
  test::Scenario scenario;
  std::size_t saves;               // how often it is said that one is made
  std::vector<std::string> files;  // in the end
  const char* last = "";           // last_checkpoint names it
  std::string content = "";        // of that file
};
void PrintTo(const Row& row, std::ostream* out) { PrintTo(row.name, out); }

const std::string kAll = ": message_hub meta optimizer param_schedulers state_dict";

const Row kRows[] = {
    // when
    {{"2.4", "by default the last epoch only"},
     {},
     1,
     {"epoch_3.pth"},
     "epoch_3.pth",
     "epoch 3 iter 12" + kAll},
    {{"2.4", "by default the last iteration only"},
     {.hook = {.by_epoch = false}, .epochs = 0, .iters = 7},
     1,
     {"iter_7.pth"},
     "iter_7.pth",
     "epoch 0 iter 7" + kAll},
    {{"2.4", "interval 0 leaves the final file"},
     {.hook = {.interval = 0}},
     1,
     {"epoch_3.pth"},
     "epoch_3.pth"},
    {{"2.4", "neither interval nor last saves nothing"}, {.hook = {.save_last = false}}, 0, {}},
    {{"2.4", "the last one besides the interval's"},
     {.hook = {.interval = 2}, .epochs = 5},
     3,
     {"epoch_2.pth", "epoch_4.pth", "epoch_5.pth"},
     "epoch_5.pth",
     "epoch 5 iter 20" + kAll},
    {{"2.4", "without save last only the interval's"},
     {.hook = {.interval = 2, .save_last = false}, .epochs = 5},
     2,
     {"epoch_2.pth", "epoch_4.pth"},
     "epoch_4.pth"},
    {{"2.4", "a last one that is due is saved once"},
     {.hook = {.interval = 2}, .epochs = 4},
     2,
     {"epoch_2.pth", "epoch_4.pth"},
     "epoch_4.pth"},
    {{"2.4", "the last one does not wait for save begin"},
     {.hook = {.interval = 1, .save_begin = 9}},
     1,
     {"epoch_3.pth"},
     "epoch_3.pth"},
    {{"2.4", "5 7 9 and the last of 12"},
     {.hook = {.interval = 2, .save_begin = 5}, .epochs = 12},
     5,
     {"epoch_11.pth", "epoch_12.pth", "epoch_5.pth", "epoch_7.pth", "epoch_9.pth"},
     "epoch_12.pth"},
    {{"2.4", "iterations with the last one"},
     {.hook = {.interval = 3, .by_epoch = false}, .epochs = 0, .iters = 8},
     3,
     {"iter_3.pth", "iter_6.pth", "iter_8.pth"},
     "iter_8.pth",
     "epoch 0 iter 8" + kAll},
    {{"2.4", "iterations from a begin"},
     {.hook = {.interval = 3, .by_epoch = false, .save_begin = 4, .save_last = false},
      .epochs = 0,
      .iters = 12},
     3,
     {"iter_10.pth", "iter_4.pth", "iter_7.pth"},
     "iter_10.pth"},
    {{"2.4", "iterations of a run of epochs, whose last is that of the last epoch"},
     {.hook = {.interval = 5, .by_epoch = false}},
     3,
     {"iter_10.pth", "iter_12.pth", "iter_5.pth"},
     "iter_12.pth",
     "epoch 2 iter 12" + kAll},
    {{"2.4", "the last iteration of an epoch counts the epochs before it"},
     {.hook = {.interval = 4, .by_epoch = false, .save_last = false}, .epochs = 1},
     1,
     {"iter_4.pth"},
     "iter_4.pth",
     "epoch 0 iter 4" + kAll},
    {{"2.9.15", "epochs of a run of iterations are one at the end"},
     {.hook = {.interval = 1}, .epochs = 0, .iters = 10},
     1,
     {"epoch_1.pth"},
     "epoch_1.pth",
     "epoch 1 iter 10" + kAll},
    {{"2.9.15", "also without save last"},
     {.hook = {.interval = 1, .save_last = false}, .epochs = 0, .iters = 10},
     1,
     {"epoch_1.pth"},
     "epoch_1.pth"},
    {{"2.9.15", "but not by an interval of 2"},
     {.hook = {.interval = 2, .save_last = false}, .epochs = 0, .iters = 10},
     0,
     {}},
    // names
    {{"2.2.2", "a template"},
     {.hook = {.interval = 2, .filename_tmpl = "ck{}_x.pth"}},
     2,
     {"ck2_x.pth", "ck3_x.pth"},
     "ck3_x.pth",
     "epoch 3 iter 12" + kAll},
    {{"2.2.2", "a template of the other unit changes the name only"},
     {.hook = {.interval = 4, .by_epoch = false, .filename_tmpl = "epoch_{}.pth"},
      .epochs = 0,
      .iters = 8},
     2,
     {"epoch_4.pth", "epoch_8.pth"},
     "epoch_8.pth",
     "epoch 0 iter 8" + kAll},
    // content
    {{"2.5.3", "without the optimizer"},
     {.hook = {.save_optimizer = false}},
     1,
     {"epoch_3.pth"},
     "epoch_3.pth",
     "epoch 3 iter 12: message_hub meta param_schedulers state_dict"},
    {{"2.5.3", "without the schedules"},
     {.hook = {.save_param_scheduler = false}},
     1,
     {"epoch_3.pth"},
     "epoch_3.pth",
     "epoch 3 iter 12: message_hub meta optimizer state_dict"},
    {{"2.5.3", "without either"},
     {.hook = {.save_optimizer = false, .save_param_scheduler = false}},
     1,
     {"epoch_3.pth"},
     "epoch_3.pth",
     "epoch 3 iter 12: message_hub meta state_dict"},
    // rotation
    {{"2.5.1", "keep 1"},
     {.hook = {.interval = 1, .max_keep_ckpts = 1}},
     3,
     {"epoch_3.pth"},
     "epoch_3.pth"},
    {{"2.5.1", "keep 2 of interval 5 in 20: 15 and 20"},
     {.hook = {.interval = 5, .max_keep_ckpts = 2}, .epochs = 20},
     4,
     {"epoch_15.pth", "epoch_20.pth"},
     "epoch_20.pth"},
    {{"2.5.1", "the last one takes a slot"},
     {.hook = {.interval = 2, .max_keep_ckpts = 2}, .epochs = 5},
     3,
     {"epoch_4.pth", "epoch_5.pth"},
     "epoch_5.pth"},
    {{"2.5.1", "keep more than there are"},
     {.hook = {.interval = 1, .max_keep_ckpts = 9}},
     3,
     {"epoch_1.pth", "epoch_2.pth", "epoch_3.pth"},
     "epoch_3.pth"},
    {{"2.5.1", "keep 0 is keep all"},
     {.hook = {.interval = 1, .max_keep_ckpts = 0}},
     3,
     {"epoch_1.pth", "epoch_2.pth", "epoch_3.pth"},
     "epoch_3.pth"},
    {{"2.5.1", "by iteration"},
     {.hook = {.interval = 3, .by_epoch = false, .max_keep_ckpts = 2}, .epochs = 0, .iters = 10},
     4,
     {"iter_10.pth", "iter_9.pth"},
     "iter_10.pth"},
    {{"2.5.1", "under a template"},
     {.hook = {.interval = 1, .max_keep_ckpts = 1, .filename_tmpl = "{}.pth"}},
     3,
     {"3.pth"},
     "3.pth"},
    // ours: a stop saves
    {{"2.9.19", "a stop inside an epoch saves the iteration: ours"},
     {.hook = {.interval = 1}, .stop_after = 6},
     2,
     {"epoch_1.pth", "iter_6.pth"},
     "iter_6.pth",
     "epoch 1 iter 6" + kAll},
    {{"2.9.19", "a stop saves without interval and save last: ours"},
     {.hook = {.save_last = false}, .stop_after = 6},
     1,
     {"iter_6.pth"},
     "iter_6.pth"},
    {{"2.9.19", "a stop when it counts iterations goes by the template: ours"},
     {.hook = {.interval = 4, .by_epoch = false, .filename_tmpl = "i{}.pth"},
      .epochs = 0,
      .iters = 9,
      .stop_after = 6},
     2,
     {"i4.pth", "i6.pth"},
     "i6.pth",
     "epoch 0 iter 6" + kAll},
};

class SaveTable : public ::testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(, SaveTable, ::testing::ValuesIn(kRows), test::NameOfRow());

TEST_P(SaveTable, LeavesTheseFiles) {
  const Row& row = GetParam();
  test::Folder folder;
  const auto run = folder.train(row.scenario);
  EXPECT_EQ(folder.error(), "");
  EXPECT_THAT(folder.files(), ElementsAreArray(row.files));
  EXPECT_THAT(run->log->with("Saving checkpoint at "), SizeIs(row.saves));
  if (*row.last == '\0') {
    EXPECT_FALSE(std::filesystem::exists(folder.work_dir() / "last_checkpoint"));
    return;
  }
  EXPECT_EQ(folder.pointer_text(), (folder.work_dir() / row.last).string());
  if (!row.content.empty()) {
    EXPECT_EQ(folder.content(row.last), row.content);
  }
}

TEST(Save, 1_21_WhatTheLogSaysOfEach) {
  test::Folder folder;
  const auto epochs = folder.train({.hook = {.interval = 2}});
  EXPECT_THAT(epochs->log->with("Saving checkpoint at "),
              ::testing::ElementsAre(::testing::HasSubstr("Saving checkpoint at 2 epochs"),
                                     ::testing::HasSubstr("Saving checkpoint at 3 epochs")));
  const auto iters =
      folder.train({.hook = {.interval = 2, .by_epoch = false}, .epochs = 0, .iters = 2});
  EXPECT_THAT(iters->log->with("Saving checkpoint at "),
              ::testing::ElementsAre(::testing::HasSubstr("Saving checkpoint at 2 iterations")));
}

}  // namespace
}  // namespace millrace
