// A state that somebody wrote while it was copied: no file of it, and another one soon.
#include <gmock/gmock.h>

#include <latch>

#include "millrace/events/checkpoint_events.h"
#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/io/memory_storage.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/engine/checkpointer.h"
#include "tests/support/controlled_storage.h"
#include "tests/support/fake_run.h"
#include "tests/support/images.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class Moved final : public CaptureWatch {
 public:
  explicit Moved(std::size_t storage) : storage_(storage) {}
  std::string moved(std::size_t i) const override {
    return i == storage_ ? "body.weight was written without passing the gate" : "";
  }

 private:
  std::size_t storage_;
};

struct DiscardTest : ::testing::Test {
  DiscardTest() : run(dir.path() / "run") {
    run.options.max_iters = 6;
    run.parts.storage = std::make_unique<test::ControlledStorage>(files);
    run.parts.hooks.add(std::make_unique<test::TestHook>(
        [this](Subscriptions& on, RunContext& context) {
          on.every<CheckpointCaptured>([this](const CheckpointCaptured& e) {
            states[e.row.name] = run.strategy->state();
            modes[e.row.name] = e.row.mode;
          });
          on.every<CheckpointDiscarded>([this](const CheckpointDiscarded& e) {
            discarded.push_back(e.row.name + ": " + e.row.error);
          });
          on.every<AfterTrain>([this, &context](const AfterTrain&) { run_ = &context; });
        },
        "Events", Priority::kHighest));
  }
  void save_every(std::int64_t interval) {
    CheckpointHookOptions options;
    options.interval = interval;
    options.by_epoch = false;
    options.save_last = false;
    options.mode = StageMode::kLazy;
    run.parts.hooks.add(std::make_unique<CheckpointHook>(options));
  }
  // The captures from `first` to `last`, counted from 1, are written past the gate.
  void move_captures(int first, int last) {
    run.strategy->make_watch = [=, n = 0]() mutable -> std::shared_ptr<const CaptureWatch> {
      ++n;
      if (n - 1 < first || n - 1 > last) return nullptr;  // the first capture sizes the arena
      return std::make_shared<Moved>(2);
    };
  }
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const std::string& name : test::names_of(*files)) {
      if (name.ends_with(".pth")) found.push_back(name);
    }
    return found;
  }

  test::TempDir dir;
  test::FakeRun run;
  std::shared_ptr<MemoryStorage> files = std::make_shared<MemoryStorage>();
  std::map<std::string, std::vector<std::vector<std::byte>>> states;
  std::map<std::string, std::string> modes;
  std::vector<std::string> discarded;
  RunContext* run_ = nullptr;
};

TEST_F(DiscardTest, ItIsRetakenEagerlyAndNamedByTheStepOfThen) {
  save_every(4);
  move_captures(1, 1);
  run.train();
  EXPECT_THAT(discarded, ElementsAre("iter_4.pth: body.weight was written without passing the "
                                     "gate"));
  const std::vector<std::string> found = names();
  ASSERT_EQ(found.size(), 1u) << "iter_4, had nothing run since, or a later one";
  EXPECT_EQ(modes[found[0]], "eager");
  EXPECT_EQ(test::state_in(*files, found[0]), states[found[0]]);
  EXPECT_EQ(CheckpointFile::read(*files, found[0]).record()->identity.reason, "retaken");
  EXPECT_THAT(run.log->with("Discarded the snapshot for iter_4.pth"),
              ElementsAre(HasSubstr("body.weight was written")));
}

// A writer that never passes the gate does not keep the run saving for ever.
TEST_F(DiscardTest, WhatIsDiscardedAgainIsGivenUp) {
  save_every(4);
  move_captures(1, 100);
  try {
    run.train();
    FAIL() << "a save that was never made counted as done";
  } catch (const CheckpointError& error) {
    EXPECT_THAT(error.what(), HasSubstr("was not saved: body.weight was written"));
  }
  EXPECT_EQ(discarded.size(), 2u);
  EXPECT_THAT(names(), IsEmpty());
}

// The scored state is gone by the time its snapshot is found wanting: that is a failure.
TEST_F(DiscardTest, ADiscardedBestIsAFailure) {
  run.parts.val = loader(test::fake_dataset(4), {.batch_size = 2});
  run.parts.metrics.push_back(std::make_unique<Accuracy>());
  run.options.val_interval = 4;
  CheckpointHookOptions options;
  options.save_last = false;
  options.save_best = {"accuracy"};
  options.by_epoch = false;
  options.mode = StageMode::kLazy;
  run.parts.hooks.add(std::make_unique<CheckpointHook>(options));
  move_captures(1, 1);
  EXPECT_THROW(run.train(), CheckpointError);
  EXPECT_THAT(discarded, ElementsAre(HasSubstr("best_accuracy_iter_4.pth")));
}

// The step has been made and not been counted: its state has no name. The write is held until
// then; an earlier end of it would be in time for a good iter_2.pth.
TEST_F(DiscardTest, ARunThatFailedIsNotSavedAgain) {
  std::latch failed(1);
  run.parts.storage =
      std::make_unique<test::ControlledStorage>(files, [&](std::string_view) { failed.wait(); });
  save_every(2);
  move_captures(1, 1);
  run.parts.hooks.add(test::on_event<AfterTrainIter>([&](const AfterTrainIter& e, RunContext&) {
    if (e.at.iter != 2) return;
    failed.count_down();
    throw std::runtime_error("a hook failed");
  }));
  EXPECT_THROW(run.train(), std::exception);
  EXPECT_THAT(discarded, ::testing::SizeIs(1));
  EXPECT_THAT(names(), IsEmpty());
}

}  // namespace
}  // namespace millrace
