#include "millrace/hooks/trace_hook.h"

#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/runtime/async/error.h"
#include "tests/support/fake_run.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using nlohmann::json;

struct TraceTest : ::testing::Test {
  TraceTest() : run(dir.path() / "run") {
    run.options.max_epochs = 2;
    run.validate();
    run.parts.hooks.add(std::make_unique<TraceHook>());
    run.parts.hooks.add(std::make_unique<CheckpointHook>(
        CheckpointHookOptions{.interval = 1, .max_keep_ckpts = 1}));
  }
  json trace() const {
    std::ifstream file(dir.path() / "run" / "trace.json");
    return json::parse(file);
  }
  test::TempDir dir;
  test::FakeRun run;
};

TEST_F(TraceTest, IsOneTimeLineOfStepsAndSaves) {
  run.options.experiment_name = "a \"quoted\" name\n";
  run.train();
  std::multiset<std::string> names;
  const json whole = trace();
  for (const json& event : whole["traceEvents"]) {
    if (event["ph"] != "X") continue;
    EXPECT_GE(event["ts"].get<double>(), 0);
    EXPECT_GE(event["dur"].get<double>(), 0);
    names.insert(event["name"].get<std::string>());
  }
  for (int step = 1; step <= 8; ++step) EXPECT_EQ(names.count("step " + std::to_string(step)), 1u);
  for (const std::string file : {"epoch_1.pth", "epoch_2.pth"}) {
    for (const char* phase : {"save ", "stage ", "write ", "sync ", "commit "}) {
      EXPECT_EQ(names.count(phase + file), 1u) << phase << file;
    }
  }
  EXPECT_EQ(names.count("remove epoch_1.pth"), 1u);
  EXPECT_EQ(names.count("validation after epoch 2"), 1u);
}

TEST_F(TraceTest, IsWrittenAlsoAfterAnError) {
  run.strategy->on_step = [steps = 0]() mutable {
    if (++steps == 3) throw Error("no");
  };
  EXPECT_THROW(run.train(), Error);
  EXPECT_FALSE(trace()["traceEvents"].empty());
}

TEST_F(TraceTest, AFileThatCannotBeWrittenIsAWarning) {
  std::filesystem::create_directories(dir.path() / "run" / "trace.json");
  run.train();
  EXPECT_THAT(run.log->with("write trace"), ::testing::SizeIs(1));
}

}  // namespace
}  // namespace millrace
