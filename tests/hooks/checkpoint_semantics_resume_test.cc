// Checkpoint semantics: a run that is resumed in between leaves what the straight run leaves. Each
// row is run twice, in one go and in two halves, and must end with the files, last_checkpoint and
// hub entries of the text, with the same counters, content and state. Index:
// checkpoint_semantics_test.cc.
#include <gmock/gmock.h>

#include <map>

#include "millrace/io/local_storage.h"
#include "millrace/runtime/engine/message_hub.h"
#include "tests/hooks/checkpoint_scenario.h"

namespace millrace {
namespace {

using ::testing::ElementsAreArray;

struct Row {
  test::RowName name;
  test::Scenario scenario;
  std::int64_t half;  // epochs or iterations of the first run
  std::vector<std::string> files;
  const char* last;
  const char* hub;
};
void PrintTo(const Row& row, std::ostream* out) { PrintTo(row.name, out); }

const Row kRows[] = {
    {{"2.4", "steps are absolute"},
     {.hook = {.interval = 2}, .epochs = 6},
     2,
     {"epoch_2.pth", "epoch_4.pth", "epoch_6.pth"},
     "epoch_6.pth",
     "last_ckpt=epoch_6.pth"},
    {{"2.4", "steps are absolute with a begin"},
     {.hook = {.interval = 2, .save_begin = 3}, .epochs = 6},
     3,
     {"epoch_3.pth", "epoch_5.pth", "epoch_6.pth"},
     "epoch_6.pth",
     "last_ckpt=epoch_6.pth"},
    {{"2.4", "steps are absolute by iteration"},
     {.hook = {.interval = 3, .by_epoch = false, .save_last = false}, .epochs = 0, .iters = 14},
     6,
     {"iter_12.pth", "iter_3.pth", "iter_6.pth", "iter_9.pth"},
     "iter_12.pth",
     "last_ckpt=iter_12.pth"},
    {{"2.4", "iterations of a run of epochs, resumed at the end of one"},
     {.hook = {.interval = 4, .by_epoch = false}, .epochs = 3},
     1,
     {"iter_12.pth", "iter_4.pth", "iter_8.pth"},
     "iter_12.pth",
     "last_ckpt=iter_12.pth"},
    {{"2.5.1", "the list goes on"},
     {.hook = {.interval = 1, .max_keep_ckpts = 3}, .epochs = 5},
     3,
     {"epoch_3.pth", "epoch_4.pth", "epoch_5.pth"},
     "epoch_5.pth",
     "keep_ckpt_ids=[3,4,5] last_ckpt=epoch_5.pth"},
    {{"2.5.1", "the list goes on by iteration"},
     {.hook = {.interval = 2, .by_epoch = false, .max_keep_ckpts = 2}, .epochs = 0, .iters = 9},
     4,
     {"iter_8.pth", "iter_9.pth"},
     "iter_9.pth",
     "keep_ckpt_ids=[8,9] last_ckpt=iter_9.pth"},
    {{"2.6.5", "a best of the second half"},
     {.hook = {.interval = 1, .save_best = {"acc"}},
      .epochs = 4,
      .scores = {{"acc", {1, 2, 1, 3}}}},
     2,
     {"best_acc_epoch_4.pth", "epoch_1.pth", "epoch_2.pth", "epoch_3.pth", "epoch_4.pth"},
     "epoch_4.pth",
     "best_ckpt=best_acc_epoch_4.pth best_score=3.0000 last_ckpt=epoch_4.pth"},
    {{"2.6.5", "a best of the first half"},
     {.hook = {.interval = 1, .save_best = {"acc"}, .max_keep_ckpts = 1},
      .epochs = 4,
      .scores = {{"acc", {1, 3, 2, 3}}}},
     2,
     {"best_acc_epoch_2.pth", "epoch_4.pth"},
     "epoch_4.pth",
     "best_ckpt=best_acc_epoch_2.pth best_score=3.0000 keep_ckpt_ids=[4] last_ckpt=epoch_4.pth"},
    {{"2.6.5", "a full best on a step of its own"},
     {.hook = {.interval = 2, .save_best = {"acc"}},
      .epochs = 5,
      .scores = {{"acc", {2, 1, 3, 2, 1}}}},
     2,
     {"best_acc_epoch_3.pth", "epoch_2.pth", "epoch_4.pth", "epoch_5.pth"},
     "epoch_5.pth",
     "best_ckpt=best_acc_epoch_3.pth best_score=3.0000 last_ckpt=epoch_5.pth"},
    {{"2.6.5", "a best of weights"},
     {.hook = {.interval = 2, .save_best = {"acc"}, .save_best_full = false},
      .epochs = 4,
      .scores = {{"acc", {1, 2, 3, 1}}}},
     2,
     {"best_acc_epoch_3.pth", "epoch_2.pth", "epoch_4.pth"},
     "epoch_4.pth",
     "best_ckpt=best_acc_epoch_3.pth best_score=3.0000 last_ckpt=epoch_4.pth"},
    {{"2.6.5", "several metrics"},
     {.hook = {.interval = 1, .save_best = {"acc", "loss"}, .max_keep_ckpts = 1},
      .epochs = 4,
      .scores = {{"acc", {1, 3, 2, 2}}, {"loss", {5, 4, 3, 4}}}},
     2,
     {"best_acc_epoch_2.pth", "best_loss_epoch_3.pth", "epoch_4.pth"},
     "epoch_4.pth",
     "best_ckpt_acc=best_acc_epoch_2.pth best_ckpt_loss=best_loss_epoch_3.pth "
     "best_score_acc=3.0000 "
     "best_score_loss=3.0000 keep_ckpt_ids=[4] last_ckpt=epoch_4.pth"},
    {{"2.6.5", "auto"},
     {.hook = {.interval = 1, .save_best = {"auto"}, .max_keep_ckpts = 1},
      .epochs = 3,
      .scores = {{"loss", {3, 2, 4}}, {"acc", {1, 2, 3}}}},
     2,
     {"best_loss_epoch_2.pth", "epoch_3.pth"},
     "epoch_3.pth",
     "best_ckpt=best_loss_epoch_2.pth best_score=2.0000 keep_ckpt_ids=[3] last_ckpt=epoch_3.pth"},
    {{"2.6.5", "by iteration"},
     {.hook = {.interval = 4, .by_epoch = false, .save_best = {"acc"}},
      .epochs = 0,
      .iters = 12,
      .scores = {{"acc", {2, 1, 3, 1, 4, 1}}},
      .val_interval = 2},
     4,
     {"best_acc_iter_10.pth", "iter_12.pth", "iter_4.pth", "iter_8.pth"},
     "iter_12.pth",
     "best_ckpt=best_acc_iter_10.pth best_score=4.0000 last_ckpt=iter_12.pth"},
};

class HalvesTable : public ::testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(, HalvesTable, ::testing::ValuesIn(kRows), test::NameOfRow());

void expect_row(const Row& row, const test::Folder& folder, test::FakeRun& run) {
  EXPECT_EQ(folder.error(), "");
  EXPECT_THAT(folder.files(), ElementsAreArray(row.files));
  EXPECT_EQ(folder.pointer(), row.last);
  EXPECT_EQ(test::hub_text(run.runner().hub().python_state()), row.hub);
}

TEST_P(HalvesTable, EndAsTheStraightRun) {
  const Row& row = GetParam();
  test::Folder straight, halves;
  const auto whole = straight.train(row.scenario);
  {
    SCOPED_TRACE("in one go");
    expect_row(row, straight, *whole);
  }
  test::Scenario first = row.scenario;
  (first.epochs > 0 ? first.epochs : first.iters) = row.half;
  halves.train(first);
  const auto second = halves.train(row.scenario, Resume::automatic());
  EXPECT_EQ(second->log->with("Resumed from").size(), 1u);
  {
    SCOPED_TRACE("in two halves");
    expect_row(row, halves, *second);
  }
  EXPECT_EQ(second->runner().progress().epoch, whole->runner().progress().epoch);
  EXPECT_EQ(second->runner().progress().iter, whole->runner().progress().iter);
  for (const std::string& file : row.files) {
    EXPECT_EQ(halves.content(file), straight.content(file)) << file;
    EXPECT_EQ(halves.hub_in(file), straight.hub_in(file)) << file;
    EXPECT_TRUE(test::state_in(LocalStorage(halves.work_dir()), file) ==
                test::state_in(LocalStorage(straight.work_dir()), file))
        << file;
  }
}

// ---- 2.3: a checkpoint of the reference itself, whose hub is all that is known

struct ForeignRow {
  test::RowName name;
  std::vector<std::int64_t> listed;  // keep_ckpt_ids
  std::vector<std::int64_t> epochs;  // of the files there; the last one, 3, is resumed
  std::map<std::string, double> scores;
  std::map<std::string, std::string> bests;  // entry, and path below the folder
  test::Scenario scenario;
  std::vector<std::string> files;
  const char* hub;
};
void PrintTo(const ForeignRow& row, std::ostream* out) { PrintTo(row.name, out); }

const ForeignRow kForeign[] = {
    {{"2.3.6", "its list goes on"},
     {2, 3},
     {2, 3},
     {},
     {},
     {.hook = {.interval = 1, .max_keep_ckpts = 2}, .epochs = 4},
     {"epoch_3.pth", "epoch_4.pth"},
     "keep_ckpt_ids=[3,4] last_ckpt=epoch_4.pth"},
    {{"2.3.6", "a list that is too long is cut with the next file: ours"},
     {1, 2, 3},
     {1, 2, 3},
     {},
     {},
     {.hook = {.interval = 1, .max_keep_ckpts = 2}, .epochs = 4},
     {"epoch_3.pth", "epoch_4.pth"},
     "keep_ckpt_ids=[3,4] last_ckpt=epoch_4.pth"},
    {{"2.9.10", "what is not listed stays"},
     {3},
     {1, 2, 3},
     {},
     {},
     {.hook = {.interval = 1, .max_keep_ckpts = 1}, .epochs = 4},
     {"epoch_1.pth", "epoch_2.pth", "epoch_4.pth"},
     "keep_ckpt_ids=[4] last_ckpt=epoch_4.pth"},
    {{"2.3.6", "without a maximum the list is left as it is"},
     {2, 3},
     {2, 3},
     {},
     {},
     {.hook = {.interval = 1}, .epochs = 4},
     {"epoch_2.pth", "epoch_3.pth", "epoch_4.pth"},
     "keep_ckpt_ids=[2,3] last_ckpt=epoch_4.pth"},
    {{"2.9.9", "a listed file that is gone takes no slot: ours"},
     {1, 2, 3},
     {1, 3},
     {},
     {},
     {.hook = {.interval = 1, .max_keep_ckpts = 3}, .epochs = 4},
     {"epoch_1.pth", "epoch_3.pth", "epoch_4.pth"},
     "keep_ckpt_ids=[1,3,4] last_ckpt=epoch_4.pth"},
    {{"2.3.5", "its best is beaten"},
     {},
     {3},
     {{"best_score", 0.5}},
     {{"best_ckpt", "run/best_acc_epoch_2.pth"}},
     {.hook = {.interval = 1, .save_best = {"acc"}}, .epochs = 4, .scores = {{"acc", {0.75}}}},
     {"best_acc_epoch_4.pth", "epoch_3.pth", "epoch_4.pth"},
     "best_ckpt=best_acc_epoch_4.pth best_score=0.7500 last_ckpt=epoch_4.pth"},
    {{"2.3.5", "auto is held against its best"},
     {},
     {3},
     {{"best_score", 0.5}},
     {{"best_ckpt", "run/best_acc_epoch_2.pth"}},
     {.hook = {.interval = 1, .save_best = {"auto"}}, .epochs = 4, .scores = {{"acc", {0.25}}}},
     {"best_acc_epoch_2.pth", "epoch_3.pth", "epoch_4.pth"},
     "best_ckpt=best_acc_epoch_2.pth best_score=0.5000 last_ckpt=epoch_4.pth"},
    {{"2.3.5", "auto beats its best"},
     {},
     {3},
     {{"best_score", 0.5}},
     {{"best_ckpt", "run/best_acc_epoch_2.pth"}},
     {.hook = {.interval = 1, .save_best = {"auto"}}, .epochs = 4, .scores = {{"acc", {0.75}}}},
     {"best_acc_epoch_4.pth", "epoch_3.pth", "epoch_4.pth"},
     "best_ckpt=best_acc_epoch_4.pth best_score=0.7500 last_ckpt=epoch_4.pth"},
    {{"2.3.5", "its best is not beaten by a tie"},
     {},
     {3},
     {{"best_score", 0.5}},
     {{"best_ckpt", "run/best_acc_epoch_2.pth"}},
     {.hook = {.interval = 1, .save_best = {"acc"}}, .epochs = 4, .scores = {{"acc", {0.5}}}},
     {"best_acc_epoch_2.pth", "epoch_3.pth", "epoch_4.pth"},
     "best_ckpt=best_acc_epoch_2.pth best_score=0.5000 last_ckpt=epoch_4.pth"},
    {{"2.3.5", "its bests of several metrics"},
     {},
     {3},
     {{"best_score_acc", 0.5}, {"best_score_loss", 2}},
     {{"best_ckpt_acc", "run/best_acc_epoch_2.pth"},
      {"best_ckpt_loss", "run/best_loss_epoch_1.pth"}},
     {.hook = {.interval = 1, .save_best = {"acc", "loss"}},
      .epochs = 4,
      .scores = {{"acc", {0.25}}, {"loss", {1}}}},
     {"best_acc_epoch_2.pth", "best_loss_epoch_4.pth", "epoch_3.pth", "epoch_4.pth"},
     "best_ckpt_acc=best_acc_epoch_2.pth best_ckpt_loss=best_loss_epoch_4.pth "
     "best_score_acc=0.5000 best_score_loss=1.0000 last_ckpt=epoch_4.pth"},
    {{"2.9.30", "its best in another folder is left alone: ours"},
     {},
     {3},
     {{"best_score", 0.5}},
     {{"best_ckpt", "other/best_acc_epoch_2.pth"}},
     {.hook = {.interval = 1, .save_best = {"acc"}}, .epochs = 4, .scores = {{"acc", {0.75}}}},
     {"best_acc_epoch_4.pth", "epoch_3.pth", "epoch_4.pth"},
     "best_ckpt=best_acc_epoch_4.pth best_score=0.7500 last_ckpt=epoch_4.pth"},
    {{"2.9.12", "its score does not say of which metric it is"},
     {},
     {3},
     {{"best_score", 0.75}},
     {{"best_ckpt", "run/best_acc_epoch_2.pth"}},
     {.hook = {.interval = 1, .save_best = {"psnr"}, .rule = {"greater"}},
      .epochs = 4,
      .scores = {{"psnr", {0.5}}}},
     {"best_acc_epoch_2.pth", "epoch_3.pth", "epoch_4.pth"},
     "best_ckpt=best_acc_epoch_2.pth best_score=0.7500 last_ckpt=epoch_4.pth"},
    {{"2.9.12", "from one metric to several its history is lost"},
     {},
     {3},
     {{"best_score", 0.75}},
     {{"best_ckpt", "run/best_acc_epoch_2.pth"}},
     {.hook = {.interval = 1, .save_best = {"acc", "loss"}},
      .epochs = 4,
      .scores = {{"acc", {0.5}}, {"loss", {1}}}},
     {"best_acc_epoch_2.pth", "best_acc_epoch_4.pth", "best_loss_epoch_4.pth", "epoch_3.pth",
      "epoch_4.pth"},
     "best_ckpt=best_acc_epoch_2.pth best_ckpt_acc=best_acc_epoch_4.pth "
     "best_ckpt_loss=best_loss_epoch_4.pth best_score=0.7500 best_score_acc=0.5000 "
     "best_score_loss=1.0000 last_ckpt=epoch_4.pth"},
};

class ForeignTable : public ::testing::TestWithParam<ForeignRow> {};
INSTANTIATE_TEST_SUITE_P(, ForeignTable, ::testing::ValuesIn(kForeign), test::NameOfRow());

TEST_P(ForeignTable, IsContinued) {
  const ForeignRow& row = GetParam();
  test::Folder folder;
  pickle::Value info = pickle::Value::dict();
  if (!row.listed.empty()) {
    pickle::Value ids = pickle::Value::list();
    for (const std::int64_t id : row.listed) ids.append(id);
    info.set("keep_ckpt_ids", std::move(ids));
  }
  for (const auto& [entry, score] : row.scores) info.set(entry, score);
  for (const auto& [entry, path] : row.bests) {
    info.set(entry, (folder.root() / path).string());
    folder.write_foreign(path, 2, 8, pickle::Value::dict());
  }
  for (const std::int64_t epoch : row.epochs) {
    folder.write_foreign("run/epoch_" + std::to_string(epoch) + ".pth", epoch, 4 * epoch, info);
  }
  const auto run = folder.train(row.scenario, Resume::automatic());
  EXPECT_EQ(folder.error(), "");
  EXPECT_THAT(run->log->with("Resumed from"),
              ::testing::ElementsAre(::testing::HasSubstr("epoch_3.pth, epoch: 3, iter: 12")));
  EXPECT_THAT(folder.files(), ElementsAreArray(row.files));
  EXPECT_EQ(test::hub_text(run->runner().hub().python_state()), row.hub);
  for (const auto& [entry, path] : row.bests) {
    if (path.starts_with("run/")) continue;
    EXPECT_TRUE(std::filesystem::exists(folder.root() / path)) << path;
  }
}

}  // namespace
}  // namespace millrace
