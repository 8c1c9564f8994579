#include "millrace/hooks/trace_hook.h"

#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/hooks/timeline_hook.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/device/cpu_device.h"
#include "millrace/runtime/device/step_streams.h"
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

// On a device the batches of training and validation have a row of their own, on the same clock.
TEST(DeviceTrace, TheTrainStreamIsARow) {
  CpuDevice device;
  const auto train = device.make_cpu_stream();
  const test::TempDir dir;
  test::FakeRun run(dir.path() / "run", {.stream = train.get()});
  run.options.max_epochs = 1;
  run.validate();
  run.parts.hooks.add(std::make_unique<TraceHook>());
  run.train();
  std::ifstream file(dir.path() / "run" / "trace.json");
  std::map<std::string, json> spans;
  std::set<std::string> rows;
  const json whole = json::parse(file);
  for (const json& event : whole["traceEvents"]) {
    if (event["ph"] == "M") rows.insert(event["args"]["name"].get<std::string>());
    if (event["ph"] == "X") spans[event["name"].get<std::string>()] = event;
  }
  EXPECT_THAT(rows, ::testing::Contains("7 train stream"));
  double last_end = 0;
  for (int batch = 1; batch <= 6; ++batch) {  // 4 of training, 2 of validation
    const auto span = spans.find("batch " + std::to_string(batch));
    ASSERT_NE(span, spans.end()) << batch;
    const double begin = span->second["ts"].get<double>();
    EXPECT_GE(begin, last_end) << batch;
    last_end = begin + span->second["dur"].get<double>();
  }
}

// The device keeps its newest spans too; none is drawn twice or lost where it lets older ones go.
TEST(DeviceTrace, ALongRunKeepsItsNewestBatches) {
  CpuDevice device;
  const auto train = device.make_cpu_stream();
  const test::TempDir dir;
  test::FakeRun run(dir.path() / "run", {.floats = 8, .stream = train.get()});
  constexpr std::int64_t kIters = 2 * StepStreams::kKeptSpans + 50;
  run.options.max_iters = kIters;
  run.parts.hooks.add(std::make_unique<TraceHook>("trace.json", 40));
  run.train();
  std::ifstream file(dir.path() / "run" / "trace.json");
  const json whole = json::parse(file);
  std::vector<std::int64_t> batches;
  std::size_t spans = 0;
  for (const json& event : whole["traceEvents"]) {
    if (event["ph"] != "X") continue;
    ++spans;
    const auto name = event["name"].get<std::string>();
    if (name.starts_with("batch ")) batches.push_back(std::stoll(name.substr(6)));
  }
  EXPECT_EQ(spans, 40u);
  ASSERT_THAT(batches, ::testing::SizeIs(::testing::Ge(15u)));
  EXPECT_EQ(batches.back(), kIters);
  for (std::size_t i = 1; i < batches.size(); ++i) EXPECT_LT(batches[i - 1], batches[i]);
  EXPECT_THAT(run.log->with("trace.json holds the newest 40 of "), ::testing::SizeIs(1));
}

TEST(ShortTrace, HoldsTheNewestSpansAndSaysSo) {
  const test::TempDir dir;
  test::FakeRun run(dir.path() / "run");
  run.options.max_epochs = 2;
  run.parts.hooks.add(std::make_unique<TraceHook>("short.json", 3));
  run.parts.hooks.add(std::make_unique<TimelineHook>("short.html", 3));
  run.train();
  std::ifstream file(dir.path() / "run" / "short.json");
  const json whole = json::parse(file);
  std::vector<std::string> kept;
  for (const json& event : whole["traceEvents"]) {
    if (event["ph"] != "M") kept.push_back(event["name"].get<std::string>());
  }
  EXPECT_THAT(kept, ::testing::ElementsAre("step 6", "step 7", "step 8"));
  for (const char* name : {"short.json", "short.html"}) {
    EXPECT_THAT(run.log->with(std::string(name) + " holds the newest 3 of 8 spans"),
                ::testing::SizeIs(1));
  }
}

// None is missing, so nothing is said.
TEST_F(TraceTest, AWholeTraceSaysNothing) {
  run.train();
  EXPECT_THAT(run.log->with("spans"), ::testing::IsEmpty());
}

TEST_F(TraceTest, IsWrittenAlsoAfterAnError) {
  int steps = 0;
  run.strategy->on_step = [&] {
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

// The page holds its data and everything it needs.
TEST_F(TraceTest, TheTimelineIsOnePage) {
  run.options.experiment_name = "</script> \"name\"";
  run.parts.hooks.add(std::make_unique<TimelineHook>());
  run.train();
  std::ifstream file(dir.path() / "run" / "timeline.html");
  const std::string page((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_EQ(page.find("</script>"), page.rfind("</script>")) << "the name ended the script";
  for (const char* outside : {"http:", "https:", "src=", "@import", "url("}) {
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  }
  EXPECT_THAT(page, ::testing::HasSubstr("\"commit epoch_2.pth\""));
  EXPECT_THAT(page, ::testing::HasSubstr("\"remove epoch_1.pth\""));
  std::size_t steps = 0;
  for (std::size_t at = page.find("\n[1,0,"); at != std::string::npos;
       at = page.find("\n[1,0,", at + 1)) {
    ++steps;
  }
  EXPECT_EQ(steps, 8u);
}

}  // namespace
}  // namespace millrace
