// Pins in places where a file is not simply there: on its way, a best, taken again, being removed.
// The simple cases are in checkpoint_hook_test.cc.
#include <gmock/gmock.h>

#include <thread>

#include "millrace/io/catalog.h"
#include "millrace/runtime/async/error.h"
#include "tests/hooks/hook_in_memory.h"
#include "tests/support/memory_backed.h"

namespace millrace {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct PinsTest : ::testing::Test, test::HookInMemory {
  std::optional<bool> pin_in_catalog(const std::string& name) {
    Catalog catalog(*files);
    catalog.open();
    const CatalogRow* row = catalog.find(name);
    return row != nullptr ? row->pinned : std::nullopt;
  }
  template <class Event, class Act>
  void at(test::FakeRun& run, Act act, const char* name = "Acts") {
    run.parts.hooks.add(test::on_event<Event>(act, name));
  }
};

constexpr StageMode kBlocking = StageMode::kBlocking;

TEST_F(PinsTest, APinnedBestStaysWhenABetterOneComes) {
  const auto run =
      make({.interval = 5, .save_last = false, .save_best = {"acc"}, .mode = kBlocking},
           {{"acc", {0.1, 0.2, 0.3}}}, 3);
  at<BeforeTrainEpoch>(*run, [&](const BeforeTrainEpoch& e, RunContext&) {
    if (e.at.epoch == 1) hook(*run).pin("best_acc_epoch_1.pth");
  });
  EXPECT_EQ(train(*run), "");
  EXPECT_THAT(checkpoints(), ElementsAre("best_acc_epoch_1.pth", "best_acc_epoch_3.pth"));
  EXPECT_EQ(pin_in_catalog("best_acc_epoch_1.pth"), true);

  const auto again =
      make({.interval = 9, .save_last = false, .save_best = {"acc"}}, {{"acc", {0.4}}}, 4);
  again->options.resume = Resume::automatic();
  EXPECT_EQ(train(*again), "");
  EXPECT_THAT(checkpoints(), ElementsAre("best_acc_epoch_1.pth", "best_acc_epoch_4.pth"))
      << "a pin outlives the run";
}

TEST_F(PinsTest, AnUnpinnedBestGoesWhenOthersAreBetter) {
  const auto run =
      make({.interval = 5, .save_last = false, .save_best = {"acc"}, .mode = kBlocking},
           {{"acc", {0.1, 0.2, 0.3}}}, 3);
  at<BeforeTrainEpoch>(*run, [&](const BeforeTrainEpoch& e, RunContext&) {
    if (e.at.epoch == 1) hook(*run).pin("best_acc_epoch_1.pth");
    if (e.at.epoch == 2) hook(*run).pin("best_acc_epoch_1.pth", false);
  });
  EXPECT_EQ(train(*run), "");
  EXPECT_THAT(checkpoints(), ElementsAre("best_acc_epoch_3.pth"));
}

// The state that is asked for has one file, a best, which is being written.
TEST_F(PinsTest, ARequestPinsTheBestThatIsOnItsWay) {
  test::Hold hold;
  const auto run =
      make({.interval = 5, .save_last = false, .save_best = {"acc"}, .mode = StageMode::kLazy},
           {{"acc", {0.1, 0.2}}}, 2, [&](std::string_view name) {
             if (name == "best_acc_epoch_1.pth") hold.enter();
           });
  at<AfterVal>(*run, [&](const AfterVal& e, RunContext&) {
    if (e.at.epoch == 1) run->runner().checkpoint_now(true);
  });
  at<BeforeTrainEpoch>(
      *run,
      [&](const BeforeTrainEpoch& e, RunContext&) {
        if (e.at.epoch == 1) hold.release();
      },
      "Releases");
  at<AfterRun>(
      *run, [&](const AfterRun&, RunContext&) { hold.release(); }, "ReleasesAtTheEnd");
  EXPECT_EQ(train(*run), "");
  EXPECT_THAT(checkpoints(), ElementsAre("best_acc_epoch_1.pth", "best_acc_epoch_2.pth"));
  EXPECT_EQ(pin_in_catalog("best_acc_epoch_1.pth"), true);
}

// A second name has no row before its file is there.
TEST_F(PinsTest, ALinkOnItsWayIsPinnedWhenItIsThere) {
  test::Hold hold;
  const auto run = make({.interval = 1, .save_best = {"acc"}, .mode = StageMode::kLazy},
                        {{"acc", {0.1, 0.2}}}, 2, [&](std::string_view name) {
                          if (name == "epoch_1.pth") hold.enter();
                        });
  at<AfterVal>(*run, [&](const AfterVal& e, RunContext&) {
    if (e.at.epoch != 1) return;
    hook(*run).pin("best_acc_epoch_1.pth");
    hold.release();
  });
  EXPECT_EQ(train(*run), "");
  EXPECT_THAT(checkpoints(), ElementsAre("best_acc_epoch_1.pth", "best_acc_epoch_2.pth",
                                         "epoch_1.pth", "epoch_2.pth"));
  EXPECT_EQ(pin_in_catalog("best_acc_epoch_1.pth"), true);
}

TEST_F(PinsTest, AStateThatIsTakenAgainKeepsItsPin) {
  const auto run = make({.interval = 1,
                         .by_epoch = false,
                         .save_begin = 6,
                         .max_keep_ckpts = 1,
                         .mode = StageMode::kLazy},
                        {}, 0);
  run->options.max_iters = 9;
  test::discard_capture(*run, 1);
  at<AfterTrainIter>(*run, [&](const AfterTrainIter& e, RunContext&) {
    if (e.at.iter + 1 == 2) run->runner().checkpoint_now(true);
  });
  EXPECT_EQ(train(*run), "");
  EXPECT_THAT(told, Contains(HasSubstr("discarded iter_2.pth")));
  ASSERT_EQ(checkpoints().size(), 2u);
  EXPECT_THAT(checkpoints(), Contains("iter_9.pth"));
  EXPECT_EQ(pin_in_catalog(checkpoints().front()), true);
}

TEST_F(PinsTest, APinnedSaveThatWaitsIsNotReplaced) {
  test::Hold hold;
  const auto run = make(
      {.interval = 1, .by_epoch = false, .mode = StageMode::kLazy, .on_busy = OnBusy::kReplace}, {},
      0, [&](std::string_view name) {
        if (name == "iter_1.pth") hold.enter();
      });
  run->options.max_iters = 3;
  at<BeforeTrainIter>(*run, [&](const BeforeTrainIter& e, RunContext&) {
    if (e.at.iter != 2) return;
    hold.wait_until_entered();
    hook(*run).pin("iter_2.pth");
    hold.release();  // the next save waits for its place
  });
  EXPECT_EQ(train(*run), "");
  EXPECT_THAT(checkpoints(), Contains("iter_2.pth"));
  EXPECT_EQ(pin_in_catalog("iter_2.pth"), true);
}

class HeldRemovals final : public test::MemoryBacked {
 public:
  HeldRemovals(std::shared_ptr<MemoryStorage> files, test::Hold& hold)
      : MemoryBacked(std::move(files)), hold_(hold) {}
  void retire(std::string_view name) override {
    hold_.enter();
    memory().retire(name);
  }

 private:
  test::Hold& hold_;
};

TEST_F(PinsTest, AFileThatIsBeingRemovedIsRefused) {
  test::Hold hold;
  const auto run = make({.interval = 1, .max_keep_ckpts = 1, .mode = kBlocking}, {}, 3);
  run->parts.storage = std::make_unique<HeldRemovals>(files, hold);
  std::string refused;
  at<BeforeTrainIter>(*run, [&](const BeforeTrainIter& e, RunContext&) {
    if (e.at.iter != 10) return;
    hold.wait_until_entered();
    try {
      hook(*run).pin("epoch_1.pth");
    } catch (const ConfigError& error) {
      refused = error.what();
    }
    hold.release();
  });
  EXPECT_EQ(train(*run), "");
  EXPECT_THAT(refused, HasSubstr("epoch_1.pth is being removed already"));
}

// ---- after a resume

struct ResumedHookTest : ::testing::Test, test::HookInMemory {};

TEST_F(ResumedHookTest, ARunOfIterationsSavesItsEndEachTime) {
  for (const std::int64_t iters : {10, 20}) {
    const auto run = make({}, {}, 0);
    run->options.max_iters = iters;
    run->options.resume = Resume::automatic();
    EXPECT_EQ(train(*run), "");
  }
  EXPECT_THAT(checkpoints(), ElementsAre("epoch_1.pth", "epoch_2.pth"));
  EXPECT_EQ(read_identity(files->open("epoch_2.pth")).value().iter, 20);
}

// Killed between the best file of acc, which holds the state, and loss's second name for it.
TEST_F(ResumedHookTest, TheOtherMetricsBestIsMadeFromTheOneThatIsThere) {
  const CheckpointHookOptions options{
      .interval = 9, .save_last = false, .save_best = {"acc", "loss"}};
  make(options, {{"acc", {0.5}}, {"loss", {1.0}}}, 1)->train();
  files->retire("best_loss_epoch_1.pth");
  const auto run = make(options, {{"acc", {0.1}}, {"loss", {7.0}}}, 2);
  run->options.resume = Resume::automatic();
  EXPECT_EQ(train(*run), "");
  EXPECT_THAT(checkpoints(), ElementsAre("best_acc_epoch_1.pth", "best_loss_epoch_1.pth"));
  EXPECT_EQ(info(*run, "best_score_loss"), "1");
}

// Killed after epoch_2 and before the second name for epoch_1 that was on its way.
TEST_F(ResumedHookTest, ASecondNameThatWasOnItsWayIsGiven) {
  test::Hold hold;
  const CheckpointHookOptions options{
      .interval = 1, .save_best = {"acc"}, .mode = StageMode::kLazy, .on_busy = OnBusy::kReplace};
  const auto run = make(options, {{"acc", {0.9, 0.1}}}, 2, [&](std::string_view name) {
    if (name == "epoch_1.pth") hold.enter();
  });
  run->parts.hooks.add(test::on_event<CheckpointCaptured>(
      [&](const CheckpointCaptured& e, RunContext&) {
        if (e.row.name == "epoch_2.pth") hold.release();
      },
      "Releases"));
  EXPECT_EQ(train(*run), "");
  files->retire("best_acc_epoch_1.pth");
  const auto again = make(options, {{"acc", {0.5}}}, 3);
  again->options.resume = Resume::automatic();
  EXPECT_EQ(train(*again), "");
  EXPECT_THAT(checkpoints(),
              ElementsAre("best_acc_epoch_1.pth", "epoch_1.pth", "epoch_2.pth", "epoch_3.pth"));
  EXPECT_EQ(save_id("best_acc_epoch_1.pth"), save_id("epoch_1.pth"));
}

}  // namespace
}  // namespace millrace
