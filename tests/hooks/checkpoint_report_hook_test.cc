#include "millrace/hooks/checkpoint_report_hook.h"

#include <gmock/gmock.h>

#include "millrace/hooks/checkpoint_hook.h"
#include "tests/support/fake_run.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

TEST(CheckpointReportHook, ListsEveryCheckpointAtTheEnd) {
  const test::TempDir dir;
  test::FakeRun run(dir.path() / "run");
  run.options.max_epochs = 3;
  run.parts.hooks.add(std::make_unique<CheckpointHook>(
      CheckpointHookOptions{.interval = 1, .mode = StageMode::kLazy}));
  auto& report = static_cast<CheckpointReportHook&>(
      run.parts.hooks.add(std::make_unique<CheckpointReportHook>()));
  run.train();
  ASSERT_THAT(report.rows(), SizeIs(3));
  for (const CheckpointRow& row : report.rows()) {
    EXPECT_EQ(row.mode, "lazy");
    EXPECT_EQ(row.bytes, std::filesystem::file_size(dir.path() / "run" / row.name));
    const SaveTimeline& t = row.times;
    EXPECT_LE(t.requested, t.capture_started);
    EXPECT_LE(t.capture_started, t.call_returned);
    EXPECT_LE(t.capture_started, t.staged);
    EXPECT_LE(t.staged, t.durable);
    EXPECT_LE(t.write_started, t.written);
    EXPECT_LE(t.written, t.synced);
    EXPECT_LE(t.synced, t.durable);
  }
  EXPECT_GT(report.training_seconds(), 0);
  EXPECT_GE(report.stall_share(), 0);
  const auto logged = run.log->with("Checkpoints of this run:");
  ASSERT_THAT(logged, SizeIs(1));
  EXPECT_THAT(logged[0], HasSubstr("epoch_3.pth"));
  EXPECT_THAT(logged[0], HasSubstr("3 checkpoints in "));
}

TEST(CheckpointReportHook, OfALongRunTheTableHasTheNewest) {
  const test::TempDir dir;
  test::FakeRun run(dir.path() / "run");
  run.options.max_epochs = 5;
  run.parts.hooks.add(std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1}));
  auto& report = static_cast<CheckpointReportHook&>(
      run.parts.hooks.add(std::make_unique<CheckpointReportHook>(2)));
  run.train();
  EXPECT_THAT(report.rows(), SizeIs(2));
  EXPECT_THAT(report.table(), HasSubstr("... 3 earlier ones\nepoch_4.pth"));
  EXPECT_THAT(report.table(), HasSubstr("5 checkpoints in "));
}

TEST(CheckpointReportHook, WithoutSavesItSaysNothing) {
  const test::TempDir dir;
  test::FakeRun run(dir.path() / "run");
  run.options.max_epochs = 1;
  run.parts.hooks.add(std::make_unique<CheckpointReportHook>());
  run.train();
  EXPECT_THAT(run.log->with("Checkpoints of this run"), SizeIs(0));
}

}  // namespace
}  // namespace millrace
