// A run that is killed and resumed goes through the same numbers as one that is not: parameters,
// optimizer state, losses and log lines, bit by bit. The net has dropout and BatchNorm, the data is
// shuffled, the learning rate warms up; LibTorch uses one thread.
#include <gmock/gmock.h>

#include <map>
#include <regex>

#include "millrace/runtime/engine/checkpoint_file.h"
#include "tests/support/temp_dir.h"
#include "tests/torch/support/child.h"

namespace millrace {
namespace {

using test::ChildResult;
using Strings = std::vector<std::string>;

constexpr int kIterations = 40;  // four epochs of ten batches

ChildResult train(const test::TempDir& folder, const std::string& optimizer, Strings more) {
  Strings arguments = {"work_dir=" + folder.path().string(), "optimizer=" + optimizer,
                       "dropout=0.3", "warmup=33", "width=96"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return test::run_child(test::trainer(std::move(arguments)));
}

// "Epoch(train) [1][ 2/10]  lr: 1.0000e-01  loss: 0.5000": log lines without what time decides.
Strings logged(const ChildResult& result) {
  static const std::regex kTimed(R"((eta|time|data_time): \S+( days?, \S+)?\s*)");
  Strings lines;
  for (const std::string& line : result.lines) {
    const auto at = line.find("(train)");
    if (line.starts_with("log ") && at != std::string::npos) {
      lines.push_back(std::regex_replace(line.substr(at), kTimed, ""));
    }
  }
  return lines;
}

Strings last(Strings lines, std::size_t count) {
  if (lines.size() > count) lines.erase(lines.begin(), lines.end() - static_cast<int>(count));
  return lines;
}
Strings first(Strings lines, std::size_t count) {
  if (lines.size() > count) lines.resize(count);
  return lines;
}

void collect(const pickle::Value& value, const CheckpointFile& file, const std::string& where,
             std::map<std::string, std::vector<std::byte>>& out) {
  if (const auto leaf = pickle::as_tensor(value)) {
    const auto bytes = file.storage(*leaf);
    out[where].assign(bytes.begin(), bytes.end());
  } else if (const auto* pairs = value.as_mapping()) {
    for (const auto& [key, item] : *pairs) {
      collect(item, file, where + "/" + pickle::describe(key), out);
    }
  }
}

void expect_same_state(const test::TempDir& a, const test::TempDir& b, const std::string& name) {
  const auto x = CheckpointFile::read_path((a.path() / name).string());
  const auto y = CheckpointFile::read_path((b.path() / name).string());
  for (const char* part : {"state_dict", "optimizer", "param_schedulers"}) {
    ASSERT_NE(x.root().find(part), nullptr) << part;
    EXPECT_EQ(*x.root().find(part), *y.root().find(part)) << part;
  }
  std::map<std::string, std::vector<std::byte>> tensors_x, tensors_y;
  collect(x.root(), x, "", tensors_x);
  collect(y.root(), y, "", tensors_y);
  ASSERT_GT(tensors_x.size(), 20u);
  ASSERT_EQ(tensors_x.size(), tensors_y.size());
  for (const auto& [where, bytes] : tensors_x) EXPECT_EQ(bytes, tensors_y[where]) << where;
  for (const char* section : {"rng", "data"}) {
    ASSERT_NE(x.section(section), nullptr) << section;
    EXPECT_EQ(*x.section(section), *y.section(section)) << section;
  }
  for (const auto* file : {&x, &y}) {  // names the run's own saves
    EXPECT_NE(file->section("hook/CheckpointHook"), nullptr);
  }
}

struct Case {
  std::string mode;
  std::string unit;  // what the save interval counts
  int interval;
  int die_after;  // the checkpoint of this iteration is committed, then the process is killed
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.mode << ", every " << c.interval << " " << c.unit << ", dies after " << c.die_after;
}

class ResumeAfterKill : public testing::TestWithParam<Case> {};

TEST_P(ResumeAfterKill, IsExact) {
  const Case& c = GetParam();
  const Strings saving = {"mode=" + c.mode, "save=" + c.unit,
                          "interval=" + std::to_string(c.interval)};
  const auto with = [&saving](Strings more) {
    more.insert(more.end(), saving.begin(), saving.end());
    return more;
  };
  const std::string final_file = c.unit == "epoch" ? "epoch_4.pth" : "iter_40.pth";
  const Strings optimizers =
      c.mode == "lazy" ? Strings{"adamw", "amsgrad", "momentum"} : Strings{"adamw"};
  for (const std::string& optimizer : optimizers) {
    SCOPED_TRACE(optimizer);
    const test::TempDir straight_folder, killed_folder;
    const auto straight = train(straight_folder, optimizer, with({"epochs=4"}));
    ASSERT_TRUE(straight.ended_well());
    ASSERT_EQ(straight.starting_with("iter ").size(), static_cast<std::size_t>(kIterations));

    const auto killed =
        train(killed_folder, optimizer, with({"epochs=4", "die=" + std::to_string(c.die_after)}));
    ASSERT_TRUE(killed.was_killed());
    const Strings before = killed.starting_with("iter ");
    ASSERT_GE(before.size(), static_cast<std::size_t>(c.die_after));
    EXPECT_EQ(before, first(straight.starting_with("iter "), before.size()));

    const auto resumed = train(killed_folder, optimizer, with({"epochs=4", "resume=auto"}));
    ASSERT_TRUE(resumed.ended_well());
    const Strings start = resumed.starting_with("resumed ");
    ASSERT_EQ(start.size(), 1u);
    const int from = std::stoi(start[0].substr(8));
    // The newest durable file: the one it died after, or one that was committed meanwhile.
    EXPECT_GE(from, c.die_after);
    ASSERT_LT(from, kIterations);
    const auto left = static_cast<std::size_t>(kIterations - from);
    EXPECT_EQ(resumed.starting_with("iter "), last(straight.starting_with("iter "), left));
    EXPECT_EQ(logged(resumed), last(logged(straight), left));
    expect_same_state(straight_folder, killed_folder, final_file);
  }
}

INSTANTIATE_TEST_SUITE_P(
    , ResumeAfterKill,
    testing::Values(Case{"lazy", "epoch", 1, 20}, Case{"eager", "epoch", 1, 20},
                    Case{"blocking", "epoch", 1, 20}, Case{"lazy", "iter", 7, 14},
                    Case{"eager", "iter", 7, 14}, Case{"blocking", "iter", 7, 14}),
    [](const testing::TestParamInfo<Case>& tested) {
      return tested.param.mode + (tested.param.unit == "epoch" ? "AtAnEpochsEnd" : "InMidEpoch");
    });

// Saving is an observer: how, when and whether a run saves does not change what it computes.
TEST(Resume, SavingDoesNotChangeTheRun) {
  const test::TempDir a, b, c;
  const auto lazy = train(a, "adamw", {"epochs=2", "mode=lazy", "save=iter", "interval=3"});
  const auto blocking = train(b, "adamw", {"epochs=2", "mode=blocking", "interval=1"});
  const auto none = train(c, "adamw", {"epochs=2", "interval=100"});
  EXPECT_EQ(lazy.starting_with("iter ").size(), 20u);
  EXPECT_EQ(lazy.starting_with("iter "), blocking.starting_with("iter "));
  EXPECT_EQ(lazy.starting_with("iter "), none.starting_with("iter "));
}

// The iteration loop crosses the data set's end inside its one epoch.
TEST(Resume, IsExactInTheIterationLoop) {
  const test::TempDir straight_folder, killed_folder;
  const Strings options = {"iters=36", "save=iter", "interval=6"};
  auto dying = options;
  dying.push_back("die=18");
  auto resuming = options;
  resuming.push_back("resume=auto");
  const auto straight = train(straight_folder, "adamw", options);
  ASSERT_TRUE(straight.ended_well());
  ASSERT_TRUE(train(killed_folder, "adamw", dying).was_killed());
  const auto resumed = train(killed_folder, "adamw", resuming);
  ASSERT_TRUE(resumed.ended_well());
  const Strings iterations = resumed.starting_with("iter ");
  ASSERT_GE(iterations.size(), 6u);
  EXPECT_EQ(iterations, last(straight.starting_with("iter "), iterations.size()));
  expect_same_state(straight_folder, killed_folder, "iter_36.pth");
}

}  // namespace
}  // namespace millrace
