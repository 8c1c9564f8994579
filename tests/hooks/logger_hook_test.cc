#include "millrace/hooks/logger_hook.h"

#include <gmock/gmock.h>

#include "millrace/hooks/default_hooks.h"
#include "millrace/runtime/async/error.h"
#include "tests/support/fake_run.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// The heads of the progress lines: "Epoch(train)  [1][2/4]".
std::vector<std::string> heads(const test::FakeRun& run) {
  std::vector<std::string> heads;
  for (const std::string& line : run.log->numbers()) {
    heads.push_back(line.substr(0, line.rfind(']') + 1));
  }
  return heads;
}

struct LoggerHookTest : ::testing::Test {
  LoggerHookTest() : run(dir.path() / "run") {}
  void log(LoggerHookOptions logger) {
    DefaultHookOptions options;
    options.logger = logger;
    run.parts.hooks = default_hooks(options);
    run.parts.hooks.remove("CheckpointHook");
  }
  test::TempDir dir;
  test::FakeRun run;
};

TEST_F(LoggerHookTest, EveryIntervalAndNotTheRestOfAnEpoch) {
  run.options.max_epochs = 2;
  log({.interval = 3});
  run.train();
  EXPECT_THAT(heads(run), ElementsAre("Epoch(train) [1][3/4]", "Epoch(train) [2][3/4]"));
  EXPECT_THAT(run.log->with("Exp name: "), SizeIs(2)) << "at each epoch's end";
}

TEST_F(LoggerHookTest, TheRestToo) {
  run.options.max_epochs = 1;
  log({.interval = 3, .ignore_last = false});
  run.train();
  EXPECT_THAT(heads(run), ElementsAre("Epoch(train) [1][3/4]", "Epoch(train) [1][4/4]"));
}

TEST_F(LoggerHookTest, AnEpochShorterThanTheIntervalIsStillSeen) {
  run.options.max_epochs = 10;
  log({.interval = 10});
  run.train();
  ASSERT_THAT(heads(run), SizeIs(10));
  EXPECT_EQ(heads(run)[0], "Epoch(train)  [1][4/4]");
  EXPECT_EQ(heads(run)[9], "Epoch(train) [10][4/4]");
}

TEST_F(LoggerHookTest, IterationRunsAndValidation) {
  run.options.max_iters = 4;
  run.options.val_interval = 4;
  run.validate();
  log({.interval = 2, .interval_exp_name = 3});
  run.train();
  EXPECT_THAT(heads(run), ElementsAre("Iter(train) [2/4]", "Iter(train) [4/4]", "Iter(val) [2/2]",
                                      "Iter(val) [2/2]"));
  EXPECT_THAT(run.log->numbers().back(), HasSubstr("accuracy: "));
  EXPECT_THAT(run.log->with("Exp name: "), SizeIs(1));
  EXPECT_THAT(run.log->with("memory: "), SizeIs(0)) << "no device reports any";
}

TEST(LoggerHook, IntervalsMustBePositive) {
  EXPECT_THROW(LoggerHook({.interval = 0}), ConfigError);
  EXPECT_THROW(LoggerHook({.interval_exp_name = -1}), ConfigError);
}

}  // namespace
}  // namespace millrace
