#include "millrace/runtime/engine/resume.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>
#include <map>

#include "millrace/hooks/default_hooks.h"
#include "millrace/io/checkpoint_store.h"
#include "millrace/io/local_storage.h"
#include "millrace/io/pickler.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_content.h"
#include "millrace/runtime/engine/checkpointer.h"
#include "millrace/runtime/engine/message_hub.h"
#include "millrace/runtime/staging/pth_image.h"
#include "millrace/runtime/staging/staging.h"
#include "tests/support/checkpoint_file.h"
#include "tests/support/fake_run.h"
#include "tests/support/fault_file_ops.h"
#include "tests/support/stage_log.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using State = std::vector<std::vector<std::byte>>;

// A run of 16 iterations, 4 to an epoch, with everything that has a state: shuffling, schedules of
// both kinds, validation, a line for every iteration with smoothed losses.
struct Case {
  const char* name;
  bool by_epoch;
  std::int64_t end;      // the iteration after which the first part ends
  bool crash;            // by an exception, else by a stop, which saves
  std::int64_t resumed;  // where the second part starts
};

void configure(test::FakeRun& run, bool by_epoch) {
  (by_epoch ? run.options.max_epochs : run.options.max_iters) = by_epoch ? 4 : 16;
  run.options.val_interval = by_epoch ? 1 : 4;
  run.validate();
  run.parts.param_schedulers.push_back(linear_lr({.span = {.end = 10, .by_epoch = false}}));
  run.parts.param_schedulers.push_back(linear_lr({.start_factor = 0.5, .span = {.end = 4}}));
  DefaultHookOptions hooks;
  hooks.logger.interval = 1;
  hooks.checkpoint.interval = by_epoch ? 1 : 3;
  hooks.checkpoint.by_epoch = by_epoch;
  run.parts.hooks = default_hooks(hooks);
}

class ExactResume : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(, ExactResume,
                         ::testing::Values(Case{"EpochsStoppedInAnEpoch", true, 6, false, 6},
                                           Case{"EpochsStoppedAtTheLastBatch", true, 8, false, 8},
                                           Case{"EpochsCrashedInAnEpoch", true, 6, true, 4},
                                           Case{"EpochsCrashedAfterAnEpoch", true, 8, true, 8},
                                           Case{"IterationsStoppedAmidTheData", false, 7, false, 7},
                                           Case{"IterationsStoppedAtTheDatasEnd", false, 8, false,
                                                8},
                                           Case{"IterationsCrashed", false, 8, true, 6}),
                         [](const auto& which) { return which.param.name; });

// The first part, ended as the case says. A crash comes with the first event after iteration `end`.
void train_first_part(const std::filesystem::path& dir, const Case& what) {
  test::FakeRun run(dir);
  configure(run, what.by_epoch);
  run.parts.hooks.add(std::make_unique<test::TestHook>([&](Subscriptions& on, RunContext& context) {
    on.every<BeforeTrainIter>([&](const BeforeTrainIter& e) {
      if (what.crash && e.at.iter == what.end) throw Error("power");
    });
    on.every<AfterTrainIter>([&](const AfterTrainIter& e) {
      if (!what.crash && e.at.iter + 1 == what.end) context.request_stop("test");
    });
  }));
  try {
    run.train();
    EXPECT_FALSE(what.crash);
  } catch (const Error&) {
    EXPECT_TRUE(what.crash);
  }
}

TEST_P(ExactResume, EqualsTheStraightRunBitForBitAndLineForLine) {
  const test::TempDir dir;
  test::FakeRun straight(dir.path() / "straight");
  configure(straight, GetParam().by_epoch);
  straight.train();

  train_first_part(dir.path() / "run", GetParam());
  test::FakeRun resumed(dir.path() / "run");
  configure(resumed, GetParam().by_epoch);
  resumed.options.seed.reset();  // the file's counts
  resumed.options.resume = Resume::automatic();
  std::vector<std::string> events;
  resumed.parts.hooks.add(std::make_unique<test::StageLog>(events));
  resumed.train();

  const std::string first_iter = "i" + std::to_string(GetParam().resumed) + " ";
  const auto first = std::find_if(events.begin(), events.end(), [](const std::string& line) {
    return line.starts_with("before_train_iter");
  });
  ASSERT_NE(first, events.end());
  EXPECT_THAT(*first, HasSubstr(first_iter));

  EXPECT_EQ(resumed.strategy->state(), straight.strategy->state());
  const auto lines = resumed.log->numbers();
  auto expected = straight.log->numbers();
  ASSERT_GT(lines.size(), 8u);
  ASSERT_LT(lines.size(), expected.size());
  expected.erase(expected.begin(), expected.end() - static_cast<std::ptrdiff_t>(lines.size()));
  EXPECT_EQ(lines, expected);
  EXPECT_EQ(resumed.runner().progress().iter, 16);
  EXPECT_EQ(resumed.runner().hub().find_scalar("train/loss")->size(), 16u);
}

struct ResumeTest : ::testing::Test {
  ResumeTest() { work_dir = dir.path() / "run"; }
  // Three epochs with a file each.
  void train_three() {
    test::FakeRun run(work_dir);
    run.options.max_epochs = 3;
    save_epochs(run);
    run.train();
  }
  static void save_epochs(test::FakeRun& run) {
    run.parts.hooks.add(std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1}));
  }
  // A run that resumes, its events in `events`.
  std::unique_ptr<test::FakeRun> resuming(Resume resume, std::int64_t epochs,
                                          test::FakeStrategyOptions model = {}) {
    auto run = std::make_unique<test::FakeRun>(work_dir, std::move(model));
    run->options.max_epochs = epochs;
    run->options.resume = std::move(resume);
    save_epochs(*run);
    run->parts.hooks.add(std::make_unique<test::StageLog>(events));
    return run;
  }
  static std::string error_of(test::FakeRun& run) {
    try {
      run.train();
    } catch (const std::exception& error) {
      return error.what();
    }
    return "no error";
  }
  CheckpointIdentity identity(std::string_view name) {
    LocalStorage storage(work_dir);
    return CheckpointStore(storage, storage).identity(name).value();
  }
  std::string path(std::string_view name) const { return (work_dir / name).string(); }
  // Where training started: the counters of the first iteration.
  std::string start() const {
    for (const std::string& line : events) {
      if (line.starts_with("before_train_iter ")) return line.substr(18);
    }
    return "nowhere";
  }

  test::TempDir dir;
  std::filesystem::path work_dir;
  std::vector<std::string> events;
};

// ---- which file

TEST_F(ResumeTest, AutomaticTakesTheNewest) {
  train_three();
  const auto run = resuming(Resume::automatic(), 4);
  run->train();
  EXPECT_EQ(start(), "e3 i12 b0");
  EXPECT_THAT(run->log->with("Resumed from"),
              ElementsAre(HasSubstr("epoch_3.pth, epoch: 3, iter: 12")));
  EXPECT_EQ(identity("epoch_4.pth").parent_id, identity("epoch_3.pth").save_id);
  EXPECT_EQ(identity("epoch_4.pth").generation, 4u);
}

// Verified while it is loaded, not before.
TEST_F(ResumeTest, AutomaticReadsTheNewestOnce) {
  train_three();
  const auto run = resuming(Resume::automatic(), 4);
  const auto files = std::make_shared<test::FaultFileOps>();
  run->parts.file_ops = files;
  run->train();
  EXPECT_EQ(start(), "e3 i12 b0");
  // In the first half of the file: who it is, is read from its end.
  const std::uint64_t half = std::filesystem::file_size(work_dir / "epoch_3.pth") / 2;
  std::uint64_t read = 0;
  for (const test::FileCall& call : files->calls()) {
    if (call.op != test::FileOp::kPread || !call.path.ends_with("/epoch_3.pth")) continue;
    const std::uint64_t end = call.offset + static_cast<std::uint64_t>(call.result);
    if (call.offset < half) read += std::min(end, half) - call.offset;
  }
  EXPECT_GE(read, half) << "this counts";
  EXPECT_LE(read, half + half / 4);
}

TEST_F(ResumeTest, AutomaticStartsFromScratchInAnEmptyFolder) {
  const auto run = resuming(Resume::automatic(), 1);
  run->train();
  EXPECT_EQ(start(), "e0 i0 b0");
  EXPECT_THAT(run->log->with("starting from scratch"), SizeIs(1));
}

TEST_F(ResumeTest, ARunResumedFromAnOlderFileBecomesTheNewest) {
  train_three();
  const std::string root = identity("epoch_1.pth").save_id;
  resuming(Resume::from(path("epoch_1.pth")), 2)->train();
  EXPECT_EQ(start(), "e1 i4 b0");
  EXPECT_EQ(identity("epoch_2.pth").parent_id, root);
  EXPECT_EQ(identity("epoch_2.pth").generation, 4u) << "above every file of the folder";
  EXPECT_EQ(identity("epoch_3.pth").generation, 3u) << "the other branch is still there";
  events.clear();
  const auto run = resuming(Resume::automatic(), 4);
  run->train();
  EXPECT_EQ(start(), "e2 i8 b0") << "the live branch, although epoch_3.pth has more steps";
}

TEST_F(ResumeTest, AutomaticSkipsATruncatedAndABitFlippedFile) {
  train_three();
  std::filesystem::resize_file(path("epoch_3.pth"),
                               std::filesystem::file_size(path("epoch_3.pth")) / 2);
  {
    std::fstream file(path("epoch_2.pth"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(50'000);
    const char flipped = static_cast<char>(file.get() ^ 1);
    file.seekp(50'000);
    file.put(flipped);
  }
  const auto run = resuming(Resume::automatic(), 2);
  run->train();
  EXPECT_EQ(start(), "e1 i4 b0");
  const auto skipped = run->log->with("Skipped ");
  ASSERT_THAT(skipped, SizeIs(2));
  EXPECT_THAT(skipped, Contains(::testing::AllOf(HasSubstr("epoch_3.pth: The file is"))));
  EXPECT_THAT(skipped, Contains(::testing::AllOf(HasSubstr("epoch_2.pth: The file is corrupt"))));
}

TEST_F(ResumeTest, AutomaticSkipsAFileThatClaimsToBeTheLastOfAll) {
  train_three();
  LocalStorage storage(work_dir);
  test::commit_bytes(storage, "epoch_9.pth",
                     test::checkpoint_file(test::identity_of(~std::uint64_t{0}, 9)));
  const auto run = resuming(Resume::automatic(), 4);
  run->train();
  EXPECT_EQ(start(), "e3 i12 b0");
  EXPECT_THAT(
      run->log->with("Skipped "),
      ElementsAre(HasSubstr("epoch_9.pth: The file is corrupt: millrace/state: The state record "
                            "claims generation 18446744073709551615, which no save can have.")));
  EXPECT_EQ(identity("epoch_4.pth").generation, 4u);
}

TEST_F(ResumeTest, ARunGoesOnAfterTheHighestGeneration) {
  const auto run = resuming({}, 3);
  run->parts.hooks.add(test::on_event<BeforeTrain>([](const BeforeTrain&, RunContext& context) {
    context.checkpointer.continue_from(test::identity_of(kMaxGeneration - 1, 0));
  }));
  run->train();
  for (const char* name : {"epoch_1.pth", "epoch_2.pth", "epoch_3.pth"}) {
    EXPECT_EQ(identity(name).generation, kMaxGeneration) << name;
  }
  events.clear();
  resuming(Resume::automatic(), 4)->train();
  EXPECT_EQ(start(), "e3 i12 b0");
  EXPECT_EQ(identity("epoch_4.pth").generation, kMaxGeneration);
}

// ---- what does not fit

TEST_F(ResumeTest, AnotherModelIsAnErrorAndNothingIsOverwritten) {
  train_three();
  std::map<std::string, std::filesystem::file_time_type> before;
  for (const auto& file : std::filesystem::directory_iterator(work_dir)) {
    if (file.is_regular_file()) before[file.path().string()] = file.last_write_time();
  }
  test::FakeStrategyOptions other;
  other.body = "spine";
  const auto run = resuming(Resume::automatic(), 5, other);
  State fresh;
  run->parts.hooks.add(test::on_event<BeforeRun>(
      [&](const BeforeRun&, RunContext&) { fresh = run->strategy->state(); }));
  EXPECT_THAT(error_of(*run),
              ::testing::AllOf(HasSubstr("epoch_3.pth"), HasSubstr("spine.weight")));
  EXPECT_EQ(run->strategy->state(), fresh);
  EXPECT_EQ(run->runner().progress().iter, 0);
  EXPECT_THAT(events, ElementsAre("before_run e0 i0", "after_run e0 i0"));
  for (const auto& [name, time] : before) EXPECT_EQ(std::filesystem::last_write_time(name), time);
}

TEST_F(ResumeTest, AnotherShapeIsAnErrorToo) {
  train_three();
  test::FakeStrategyOptions other;
  other.floats = 7000;
  EXPECT_THAT(error_of(*resuming(Resume::automatic(), 5, other)), HasSubstr("of another model"));
}

TEST_F(ResumeTest, ARunThatDoesNotSaveResumesAndAFileWithoutSchedulesWarns) {
  train_three();
  test::FakeRun run(work_dir);
  run.options.max_epochs = 4;
  run.options.resume = Resume::automatic();
  run.parts.param_schedulers.push_back(linear_lr({}));
  run.train();
  EXPECT_THAT(run.log->with("holds no parameter schedules"), SizeIs(1));
}

TEST_F(ResumeTest, AnotherDataSetIsRefused) {
  test::FakeRun first(work_dir);
  first.options.max_epochs = 2;
  save_epochs(first);
  first.parts.hooks.add(test::on_event<AfterTrainIter>([](const AfterTrainIter& e, RunContext& c) {
    if (e.at.iter == 2) c.request_stop("test");
  }));
  first.train();
  const auto run = resuming(Resume::automatic(), 2);
  run->parts.train = loader(test::fake_dataset(6), {.batch_size = 3});
  EXPECT_THAT(error_of(*run), HasSubstr("this run's has 2 batches of 3"));
}

TEST_F(ResumeTest, AFileWithoutOptimizerCannotBeResumed) {
  test::FakeRun first(work_dir);
  first.options.max_epochs = 1;
  first.parts.hooks.add(std::make_unique<CheckpointHook>(
      CheckpointHookOptions{.interval = 1, .save_optimizer = false}));
  first.train();
  EXPECT_THAT(error_of(*resuming(Resume::automatic(), 2)), HasSubstr("holds no optimizer state"));
}

TEST_F(ResumeTest, AMissingFileAndADirectorySayWhatTheyAre) {
  EXPECT_THAT(error_of(*resuming(Resume::from(path("none.pth")), 2)),
              HasSubstr("can not be found"));
  EXPECT_THAT(error_of(*resuming(Resume::from(work_dir.string()), 2)),
              HasSubstr("is a directory; name the .pth file in it"));
}

// ---- load_from

TEST_F(ResumeTest, LoadFromTakesTheWeightsAndNothingElse) {
  train_three();
  test::FakeRun donor(dir.path() / "donor");
  donor.options.max_epochs = 3;
  donor.train();
  work_dir = dir.path() / "other";
  const auto run = resuming(Resume(), 1);
  run->options.load_from = (dir.path() / "run" / "epoch_3.pth").string();
  State loaded;
  run->parts.hooks.add(test::on_event<BeforeTrain>(
      [&](const BeforeTrain&, RunContext&) { loaded = run->strategy->state(); }));
  run->train();
  EXPECT_EQ(start(), "e0 i0 b0");
  const State trained = donor.strategy->state();
  for (const std::size_t weight : {0, 2, 4, 5})
    EXPECT_EQ(loaded[weight], trained[weight]) << weight;
  for (const std::size_t momentum : {1, 3}) EXPECT_NE(loaded[momentum], trained[momentum]);
  EXPECT_NE(loaded[6], trained[6]) << "the generator";
  EXPECT_EQ(identity("epoch_1.pth").parent_id, "");
  EXPECT_THAT(run->log->with("Loaded the weights of"), SizeIs(1));
}

TEST_F(ResumeTest, LoadFromWarnsOfWhatDoesNotFitAndRefusesWhenNothingDoes) {
  train_three();
  const std::string file = path("epoch_3.pth");
  work_dir = dir.path() / "other";
  test::FakeStrategyOptions other;
  other.body = "spine";
  const auto run = resuming(Resume(), 1, other);
  run->options.load_from = file;
  run->train();
  EXPECT_THAT(run->log->with("does not fit: spine.weight"), SizeIs(1));
  other.floats = 10;
  const auto small = resuming(Resume(), 1, other);
  small->options.load_from = file;
  EXPECT_THAT(error_of(*small), HasSubstr("none of its tensors fits"));
}

// ---- files of other programs

// What another program writes: meta, weights and optimizer, and nothing of ours.
void write_foreign(const std::filesystem::path& dir, std::string_view name,
                   const pickle::Value& meta) {
  test::FakeStrategy model;
  CapturedState state = model.capture(true);
  pickle::Value root = pickle::Value::dict();
  root.set("meta", meta);
  root.set("state_dict", state.state_dict);
  root.set("optimizer", state.optimizer);
  pickle::Value hub = pickle::Value::dict();
  pickle::Value info = pickle::Value::dict();
  info.set("keep_ckpt_ids", pickle::Value::list({pickle::Value(1)}));
  hub.set("runtime_info", std::move(info));
  root.set("message_hub", std::move(hub));
  Staging staging;
  PthImage image(staging.begin(state.storages, StageMode::kBlocking), pickle::pickle(root), {});
  LocalStorage storage(dir);
  storage.prepare();
  storage.commit(name, image);
}

pickle::Value meta(std::int64_t epoch, std::int64_t iter) {
  pickle::Value value = pickle::Value::dict();
  value.set("epoch", epoch);
  value.set("iter", iter);
  value.set("seed", 77);
  return value;
}

TEST_F(ResumeTest, AForeignFileResumesWithANoteOfWhatIsMissing) {
  write_foreign(work_dir, "epoch_1.pth", meta(1, 6));
  const auto run = resuming(Resume::automatic(), 2);
  run->options.seed.reset();
  run->train();
  EXPECT_EQ(start(), "e1 i6 b2") << "as far as the counters make sense";
  EXPECT_EQ(run->runner().seed(), 77u);
  EXPECT_THAT(run->log->with("was not written by Millrace"), SizeIs(1));
  EXPECT_EQ(identity("epoch_2.pth").parent_id, "");
}

TEST_F(ResumeTest, AForeignFileWithoutCountersCanOnlyBeLoaded) {
  write_foreign(work_dir, "epoch_1.pth", pickle::Value());
  EXPECT_THAT(error_of(*resuming(Resume::automatic(), 2)),
              ::testing::AllOf(HasSubstr("has no meta['epoch']"), HasSubstr("load_from")));
  write_foreign(work_dir, "epoch_1.pth", meta(-1, 4));
  EXPECT_THAT(error_of(*resuming(Resume::automatic(), 2)), HasSubstr("has no meta['epoch']"));
}

// ---- hooks

class Counting final : public Hook {
 public:
  std::string_view name() const override { return "Counting"; }
  void subscribe(Subscriptions& on) override {
    on.every<AfterTrainIter>([this](const AfterTrainIter&) { ++count; });
  }
  std::string save_state() const override { return std::to_string(count); }
  void load_state(std::string_view state) override { count = std::stoi(std::string(state)); }
  int count = 0;
};

TEST_F(ResumeTest, HookStatesTravelInTheFile) {
  test::FakeRun first(work_dir);
  first.options.max_epochs = 2;
  first.parts.hooks.add(std::make_unique<Counting>());
  save_epochs(first);
  first.train();
  const auto run = resuming(Resume::automatic(), 3);
  auto& counting = static_cast<Counting&>(run->parts.hooks.add(std::make_unique<Counting>()));
  run->train();
  EXPECT_EQ(counting.count, 12);
  EXPECT_THAT(run->log->with("a state of the hook"), IsEmpty());
  const auto without = resuming(Resume::automatic(), 4);
  without->train();
  EXPECT_THAT(without->log->with("a state of the hook 'Counting', which this run lacks"),
              SizeIs(1));
}

TEST_F(ResumeTest, AHookMayChangeWhatWasRead) {
  train_three();
  const auto run = resuming(Resume::automatic(), 4);
  run->parts.hooks.add(std::make_unique<test::TestHook>([](Subscriptions& on, RunContext&) {
    on.every<AfterLoadCheckpoint>([](const AfterLoadCheckpoint& e) {
      EXPECT_THAT(std::string(e.path), HasSubstr("epoch_3.pth"));
      e.content.set("meta", meta(2, 8));
    });
  }));
  run->train();
  EXPECT_EQ(start().substr(0, 5), "e2 i8");
}

// A broken section of a file whose checksum is right: no internal error reaches the user.
TEST_F(ResumeTest, AnUnreadableSectionIsACheckpointError) {
  for (const char* section : {"data", "hub", "hook/CheckpointHook"}) {
    std::filesystem::remove_all(work_dir);
    test::FakeRun first(work_dir);
    first.options.max_epochs = 1;
    first.parts.hooks.add(test::on_event<BeforeSaveCheckpoint>(
        [&](const BeforeSaveCheckpoint& e, RunContext&) { e.content.sections()[section] = "?"; }));
    save_epochs(first);
    first.train();
    const auto run = resuming(Resume::automatic(), 2);
    try {
      run->train();
      FAIL() << section;
    } catch (const CheckpointError& error) {
      EXPECT_THAT(error.what(), HasSubstr("epoch_1.pth")) << section;
    }
  }
}

}  // namespace
}  // namespace millrace
