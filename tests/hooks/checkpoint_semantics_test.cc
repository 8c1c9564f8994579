// Checkpoint semantics: what the CheckpointHook of the reference, MMEngine 0.10.7, does, rule by
// rule as tables; README's compatibility table names what differs on purpose. Expected values
// follow those rules and the reference's own tests. A row's name begins with a rule's number; one
// that ends in "ours" pins a difference. The numbers are our own count of the reference's rules and
// lead to no document: the rest of the row's name and its values say the rule.
//
// Index. Files without a folder are here, in tests/hooks; checkpoint_semantics_x_test is x.
//
//   1.21        texts of the log: PlaceTable, Save (save), BestTable (best), TimeLine (validation),
//               Publish (publish)
//   2.1         StateTable; that it survives a resume: HalvesTable, ForeignTable (resume)
//   2.2.1-4, 6, 8, 9    OptionsTable (checkpoint_options_test); defaults: OptionsDefaults (there)
//   2.2.5, 2.2.7        best_metric_test, OptionsTable
//   2.2.10      an unknown option does not compile
//   2.3.1-4     PlaceTable, Place
//   2.3.5, 2.3.6        ForeignTable (resume), ChangeTable (hazards), Publish (publish)
//   2.4         DueTable, SaveTable (save); over a resume: HalvesTable (resume)
//   2.5         SaveTable (save), StateTable; over a resume: HalvesTable (resume); the same step
//               again: io/retention_test; the pointer comes after the file:
//               io/checkpoint_store_test
//   2.6.1, 2.6.4        Best (validation); 2.6.4 also BestTable (best)
//   2.6.2-6     BestTable, ContentTable (best); links, copies, the best K: best_checkpoint_test
//   2.7         PublishTable, Publish (publish); how a file is reduced and named: io/publish_test
//   2.8         one process, nothing to show yet
//   2.9.1       checkpoint_hook_test (WithOneSlotAFailedSave...), Hazard (hazards)
//   2.9.2       best_checkpoint_test (AFailedBestIsNoBest)
//   2.9.3, 2.9.4        io/local_storage_fault_test, io/checkpoint_store_test, stress/*_kill_test
//   2.9.5       engine/resume_test (AutomaticSkipsATruncatedAndABitFlippedFile)
//   2.9.6       engine/save_failure_test
//   2.9.7, 14, 18, 23, 28       Hazard (hazards)
//   2.9.8       there are no checkpoints that are directories
//   2.9.9, 2.9.10, 2.9.12       ForeignTable (resume), ChangeTable, Hazard (hazards)
//   2.9.11      best_checkpoint_test (AnotherRunsBestFileIsNeverRemoved)
//   2.9.13      OptionsTable (checkpoint_options_test)
//   2.9.15      SaveTable (save), BestTable (best)
//   2.9.16      Best (validation), OptionsTable; best_checkpoint_test (AMetricThatNobodyGives...)
//   2.9.17, 21  BestTable (best)
//   2.9.19      SaveTable (save), checkpoint_hook_test (stops); exceptions: Publish (publish)
//   2.9.20, 24  ChangeTable, Hazard (hazards)
//   2.9.22, 26, 31      of FlexibleRunner, of Python, of EMAHook: nothing here
//   2.9.25      engine/checkpointer_test (OverlapTest), torch/overlap_test
//   2.9.27      default_hooks_test (AreTheReferencesSixInItsOrder)
//   2.9.29      Best (validation), best_checkpoint_test (AutoIsTheFirstMetric...)
//   2.9.30      ForeignTable (resume)
//   2.10        TimeLine (validation)
//   all of it   checkpoint_hook_golden_test: recorded runs of the reference
#include <gmock/gmock.h>

#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/io/local_storage.h"
#include "millrace/io/memory_storage.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/engine/message_hub.h"
#include "tests/hooks/checkpoint_scenario.h"
#include "tests/support/images.h"

namespace millrace {
namespace {

using ::testing::ElementsAreArray;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using Names = std::vector<std::string>;

// ---- 2.1: the message hub, in the file and after the run

struct StateRow {
  test::RowName name;
  test::Scenario scenario;
  const char* file;
  const char* in_file;
  const char* after;
};
void PrintTo(const StateRow& row, std::ostream* out) { PrintTo(row.name, out); }

const StateRow kState[] = {
    {{"2.1", "a file names itself as last ckpt"},
     {.hook = {.interval = 1}},
     "epoch_2.pth",
     "last_ckpt=epoch_2.pth",
     "last_ckpt=epoch_3.pth"},
    {{"2.1", "a file lists itself among the kept"},
     {.hook = {.interval = 1, .max_keep_ckpts = 2}},
     "epoch_3.pth",
     "keep_ckpt_ids=[2,3] last_ckpt=epoch_3.pth",
     "keep_ckpt_ids=[2,3] last_ckpt=epoch_3.pth"},
    {{"2.1", "a list that is not full yet"},
     {.hook = {.interval = 1, .max_keep_ckpts = 5}},
     "epoch_2.pth",
     "keep_ckpt_ids=[1,2] last_ckpt=epoch_2.pth",
     "keep_ckpt_ids=[1,2,3] last_ckpt=epoch_3.pth"},
    {{"2.1", "ids are iterations when it counts iterations"},
     {.hook = {.interval = 4, .by_epoch = false, .max_keep_ckpts = 2}, .epochs = 0, .iters = 12},
     "iter_8.pth",
     "keep_ckpt_ids=[4,8] last_ckpt=iter_8.pth",
     "keep_ckpt_ids=[8,12] last_ckpt=iter_12.pth"},
    {{"2.1", "one metric has no name in its entries; no refresh: ours"},
     {.hook = {.interval = 1, .save_best = {"acc"}}, .epochs = 2, .scores = {{"acc", {0.25, 0.5}}}},
     "epoch_2.pth",
     "best_ckpt=best_acc_epoch_1.pth best_score=0.2500 last_ckpt=epoch_2.pth",
     "best_ckpt=best_acc_epoch_2.pth best_score=0.5000 last_ckpt=epoch_2.pth"},
    {{"2.1", "auto counts as one metric"},
     {.hook = {.interval = 1, .save_best = {"auto"}},
      .epochs = 2,
      .scores = {{"loss", {4, 3}}, {"acc", {0.5, 0.25}}}},
     "epoch_2.pth",
     "best_ckpt=best_loss_epoch_1.pth best_score=4.0000 last_ckpt=epoch_2.pth",
     "best_ckpt=best_loss_epoch_2.pth best_score=3.0000 last_ckpt=epoch_2.pth"},
    {{"2.1", "several metrics have their names in their entries"},
     {.hook = {.interval = 1, .save_best = {"acc", "loss"}},
      .epochs = 2,
      .scores = {{"acc", {0.5, 0.25}}, {"loss", {4, 3}}}},
     "epoch_2.pth",
     "best_ckpt_acc=best_acc_epoch_1.pth best_ckpt_loss=best_loss_epoch_1.pth "
     "best_score_acc=0.5000 best_score_loss=4.0000 last_ckpt=epoch_2.pth",
     "best_ckpt_acc=best_acc_epoch_1.pth best_ckpt_loss=best_loss_epoch_2.pth "
     "best_score_acc=0.5000 best_score_loss=3.0000 last_ckpt=epoch_2.pth"},
    {{"2.1", "a best file names itself"},
     {.hook = {.interval = 2, .save_best = {"acc"}, .save_best_full = false},
      .scores = {{"acc", {0.25, 0.25, 0.75}}}},
     "best_acc_epoch_3.pth",
     "best_ckpt=best_acc_epoch_3.pth best_score=0.7500 last_ckpt=epoch_3.pth",
     "best_ckpt=best_acc_epoch_3.pth best_score=0.7500 last_ckpt=epoch_3.pth"},
    {{"2.1", "a full best file names itself: ours"},
     {.hook = {.interval = -1, .save_last = false, .save_best = {"acc"}},
      .scores = {{"acc", {0.25, 0.75, 0.5}}}},
     "best_acc_epoch_2.pth",
     "best_ckpt=best_acc_epoch_2.pth best_score=0.7500",
     "best_ckpt=best_acc_epoch_2.pth best_score=0.7500"},
    {{"2.1", "a file inside an epoch is no id: ours"},
     {.hook = {.interval = 1, .max_keep_ckpts = 3}, .stop_after = 6},
     "iter_6.pth",
     "keep_ckpt_ids=[1] last_ckpt=iter_6.pth",
     "keep_ckpt_ids=[1] last_ckpt=iter_6.pth"},
};

class StateTable : public ::testing::TestWithParam<StateRow> {};
INSTANTIATE_TEST_SUITE_P(, StateTable, ::testing::ValuesIn(kState), test::NameOfRow());

TEST_P(StateTable, IsInTheMessageHub) {
  const StateRow& row = GetParam();
  test::Folder folder;
  const auto run = folder.train(row.scenario);
  EXPECT_EQ(folder.error(), "");
  EXPECT_EQ(folder.hub_in(row.file), row.in_file);
  EXPECT_EQ(test::hub_text(run->runner().hub().python_state()), row.after);
  // All with the "resumed" flag, so that they come back.
  const auto file = CheckpointFile::read(LocalStorage(folder.work_dir()), row.file);
  const pickle::Value* hub = file.root().find("message_hub");
  for (const auto& [key, value] : *hub->find("runtime_info")->as_mapping()) {
    const pickle::Value* resumed = hub->find("resumed_keys")->find(key);
    ASSERT_NE(resumed, nullptr) << *key.as_string();
    EXPECT_EQ(std::get<bool>(resumed->data), true) << *key.as_string();
  }
}

// ---- 2.3: where files go

struct PlaceRow {
  test::RowName name;
  const char* work_dir;  // below the folder
  const char* out_dir;   // likewise; empty: not given
  const char* found;     // where the files are
};
void PrintTo(const PlaceRow& row, std::ostream* out) { PrintTo(row.name, out); }

const PlaceRow kPlaces[] = {
    {{"2.3.1", "the work dir by default"}, "run", "", "run"},
    {{"2.3.3", "the work dir given as out dir"}, "run", "run", "run"},
    {{"2.3.3", "the work dir in other words"}, "run", "run/./", "run"},
    {{"2.3.3", "another folder gets the last component of the work dir"}, "run", "out", "out/run"},
    {{"2.3.3", "also of a deeper one"}, "a/b/run", "out", "out/run"},
    {{"2.3.3", "also of one with a last slash"}, "run/", "out", "out/run"},
    {{"2.3.3", "a folder inside the work dir is another folder"}, "run", "run/ck", "run/ck/run"},
};

class PlaceTable : public ::testing::TestWithParam<PlaceRow> {};
INSTANTIATE_TEST_SUITE_P(, PlaceTable, ::testing::ValuesIn(kPlaces), test::NameOfRow());

// Twice: the reference appends the component again at each train(), ours once.
TEST_P(PlaceTable, IsWhereFilesAreAndWhatTheLogAndThePointerSay) {
  const PlaceRow& row = GetParam();
  const test::TempDir dir;
  const std::filesystem::path work_dir = dir.path() / row.work_dir;
  const std::string found = (dir.path() / row.found).string();
  CheckpointHookOptions options{.interval = 2};
  if (*row.out_dir != '\0') options.out_dir = dir.path() / row.out_dir;
  test::FakeRun run(work_dir);
  run.options.max_epochs = 2;
  run.parts.hooks.add(std::make_unique<CheckpointHook>(options));
  run.train();
  run.train();
  EXPECT_TRUE(std::filesystem::exists(dir.path() / row.found / "epoch_2.pth"));
  EXPECT_FALSE(std::filesystem::exists(dir.path() / row.found / "run"));
  EXPECT_THAT(run.log->with("Checkpoints will be saved to " + found + "."), SizeIs(2));
  EXPECT_EQ(test::read_text(LocalStorage(work_dir), "last_checkpoint"), found + "/epoch_2.pth");
}

TEST(Place, 2_3_2_AStorageOfItsOwnAndThePointerStaysLocal) {
  auto storage = std::make_shared<MemoryStorage>();
  test::Folder folder;
  folder.train({.hook = {.interval = 3, .out_storage = storage}});
  EXPECT_THAT(test::names_of(*storage), ElementsAreArray({"epoch_3.pth"}));
  EXPECT_THAT(folder.files(), IsEmpty());
  EXPECT_EQ(folder.pointer_text(), "memory:/epoch_3.pth");
}

}  // namespace
}  // namespace millrace
