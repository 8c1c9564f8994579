// What CheckpointHook says and links after a save that failed, was discarded or came back only in
// part: never another run's file, never one that is not there.
#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "millrace/io/catalog.h"
#include "millrace/runtime/async/io_pool.h"
#include "millrace/runtime/async/run_on.h"
#include "tests/hooks/hook_in_memory.h"
#include "tests/support/memory_backed.h"

namespace millrace {
namespace {

using test::fail_write;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

struct FailedSaveTest : ::testing::Test, test::HookInMemory {};

// The best of acc fails within the call, and loss is looked at before any event says so.
TEST_F(FailedSaveTest, AnOlderRunsFileOfThatNameIsNobodysBest) {
  const CheckpointHookOptions options{.interval = 5,
                                      .save_last = false,
                                      .save_best = {"acc", "loss"},
                                      .mode = StageMode::kBlocking};
  make(options, {{"acc", {0.1}}, {"loss", {9}}}, 1)->train();
  const std::string older = save_id("best_acc_epoch_1.pth");
  const auto run = make(options, {{"acc", {0.9}}, {"loss", {0.5}}}, 1, [](std::string_view name) {
    if (name == "best_acc_epoch_1.pth") fail_write(name);
  });
  run->options.seed = 77;
  EXPECT_THAT(train(*run), HasSubstr("best_acc_epoch_1.pth"));
  EXPECT_EQ(save_id("best_acc_epoch_1.pth"), older);
  EXPECT_NE(save_id("best_loss_epoch_1.pth"), older);
  EXPECT_EQ(info(*run, "best_ckpt_loss"), "best_loss_epoch_1.pth");
}

Task<> give_time(IoPool* io, test::Hold* hold, std::int64_t milliseconds) {
  hold->release();
  const auto nap = [milliseconds] {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  };
  co_await run_on(io->executor(), nap);
}

// A hook before CheckpointHook awaits something while the save fails.
TEST_F(FailedSaveTest, NorWhenTheRegularSaveFailsDuringTheValidation) {
  make({.interval = 1}, {}, 1)->train();
  const std::string older = save_id("epoch_1.pth");
  test::Hold hold;
  IoPool other;
  const auto run = make({.interval = 1, .save_best = {"acc"}, .mode = StageMode::kLazy},
                        {{"acc", {0.9}}}, 1, [&](std::string_view name) {
                          if (name != "epoch_1.pth") return;
                          hold.enter();
                          fail_write(name);
                        });
  run->options.seed = 77;
  run->parts.hooks.add(std::make_unique<test::TestHook>(
      [&](Subscriptions& on, RunContext&) {
        on.awaited<AfterValEpoch>(
            [&](const AfterValEpoch&) { return give_time(&other, &hold, 50); });
      },
      "Waits", Priority::kNormal));
  train(*run);
  // Whether it was in time for the link or not: the file has this run's state, or is not there.
  if (was_told("committed best_acc_epoch_1.pth")) {
    EXPECT_NE(save_id("best_acc_epoch_1.pth"), older);
  } else {
    EXPECT_THAT(checkpoints(), ElementsAre("epoch_1.pth"));
  }
}

TEST_F(FailedSaveTest, AnOlderRunsFileIsNotPublished) {
  make({.interval = 1}, {}, 3)->train();
  const auto run =
      make({.interval = 1, .published_keys = {"state_dict", "meta"}, .mode = StageMode::kBlocking},
           {{"acc", {0.1}}}, 3, [](std::string_view name) {
             if (name == "epoch_3.pth") fail_write(name);
           });
  run->options.seed = 77;
  EXPECT_THAT(train(*run), HasSubstr("epoch_3.pth"));
  EXPECT_THAT(told, Contains("published epoch_2.pth"));
  EXPECT_THAT(told, Not(Contains(HasSubstr("published epoch_3.pth"))));
  EXPECT_EQ(info(*run, "last_ckpt"), "epoch_2.pth");
}

TEST_F(FailedSaveTest, TheFileBeforeOneThatFailsAtTheEndIsPublished) {
  test::Hold hold;
  const auto run = make({.interval = 1, .published_keys = {"state_dict"}, .mode = StageMode::kLazy},
                        {}, 2, [&](std::string_view name) {
                          if (name != "epoch_2.pth") return;
                          hold.enter();
                          fail_write(name);
                        });
  run->parts.hooks.add(test::on_event<AfterTrain>(
      [&](const AfterTrain&, RunContext&) { hold.release(); }, "Releases"));
  EXPECT_THAT(train(*run), HasSubstr("epoch_2.pth"));
  EXPECT_THAT(told, Contains("published epoch_1.pth"));
  EXPECT_EQ(info(*run, "last_ckpt"), "epoch_1.pth");
}

TEST_F(FailedSaveTest, WithNoneBeforeItThereIsNoLastCheckpoint) {
  const auto run = make({.interval = 1, .mode = StageMode::kBlocking}, {}, 1, fail_write);
  train(*run);
  EXPECT_EQ(info(*run, "last_ckpt"), "");
}

// epoch_3 is captured after epoch_2 has failed and before an event says so.
TEST_F(FailedSaveTest, ABestThatFailedIsNotInTheNextCheckpoint) {
  test::Hold hold;
  const auto run = make({.interval = 1, .save_best = {"acc"}, .mode = StageMode::kLazy},
                        {{"acc", {0.5, 0.9, 0.1}}}, 3, [&](std::string_view name) {
                          if (name != "epoch_2.pth") return;
                          hold.enter();
                          fail_write(name);
                        });
  run->parts.hooks.add(std::make_unique<test::TestHook>(
      [&](Subscriptions& on, RunContext&) {
        on.every<AfterTrainEpoch>([&](const AfterTrainEpoch& e) {
          if (e.at.epoch == 2) hold.release();  // its save waits for that of epoch 2
        });
      },
      "Releases", Priority::kHighest));
  train(*run);
  EXPECT_EQ(info(*run, "best_ckpt"), "best_acc_epoch_1.pth");
  const auto again = make({.interval = 1, .save_best = {"acc"}}, {{"acc", {0.7, 0.8}}}, 5);
  again->options.resume = Resume::automatic();
  EXPECT_EQ(train(*again), "");
  EXPECT_THAT(told, Contains("committed best_acc_epoch_4.pth"));
  EXPECT_EQ(info(*again, "best_ckpt"), "best_acc_epoch_5.pth");
  EXPECT_THAT(checkpoints(), ElementsAre("best_acc_epoch_5.pth", "epoch_1.pth", "epoch_3.pth",
                                         "epoch_4.pth", "epoch_5.pth"));
}

// The next row of best_acc_epoch_2.pth fails, `times` times. Its row is written after a look at its
// size.
class LosesRows final : public test::MemoryBacked {
 public:
  LosesRows(std::shared_ptr<MemoryStorage> files, int times)
      : MemoryBacked(std::move(files)), left_(times) {}
  CommitTimes commit(std::string_view name, FileImage& image) override {
    if (name == Catalog::kName) fail_if_due();
    return memory().commit(name, image);
  }
  bool append(std::string_view name, std::span<const std::byte> bytes) override {
    fail_if_due();
    return memory().append(name, bytes);
  }
  std::unique_ptr<StoredObject> open(std::string_view name) const override {
    due_ = name == "best_acc_epoch_2.pth";
    return memory().open(name);
  }

 private:
  void fail_if_due() {
    if (std::exchange(due_, false) && left_-- > 0) fail_write(Catalog::kName);
  }
  mutable bool due_ = false;  // only one I/O thread
  int left_;
};

// Three epochs, each better than the one before.
struct RowOfABest : FailedSaveTest {
  std::unique_ptr<test::FakeRun> make_failing(int times) {
    auto run = make({.interval = 1, .save_best = {"acc"}}, {{"acc", {0.5, 0.6, 0.7}}}, 3);
    run->options.io.threads = 1;
    run->parts.storage = std::make_unique<LosesRows>(files, times);
    return run;
  }
};

TEST_F(RowOfABest, IsWrittenOnceMore) {
  const auto run = make_failing(1);
  EXPECT_EQ(train(*run), "");
  EXPECT_EQ(run->log->with("Recording best_acc_epoch_2.pth again").size(), 1u);
  EXPECT_THAT(checkpoints(),
              ElementsAre("best_acc_epoch_3.pth", "epoch_1.pth", "epoch_2.pth", "epoch_3.pth"));
}

TEST_F(RowOfABest, AndWithoutOneItStillGivesWayToABetterOne) {
  const auto run = make_failing(2);
  EXPECT_THAT(train(*run), HasSubstr("best_acc_epoch_2.pth"));
  EXPECT_THAT(told, Contains(HasSubstr("failed best_acc_epoch_2.pth")));
  EXPECT_THAT(checkpoints(),
              ElementsAre("best_acc_epoch_3.pth", "epoch_1.pth", "epoch_2.pth", "epoch_3.pth"));
}

TEST_F(FailedSaveTest, TheHubNamesNoBestThatIsNotThere) {
  make({.interval = 1, .save_best = {"acc"}}, {{"acc", {0.5}}}, 1)->train();
  const auto second = make({.interval = 1, .save_best = {"acc"}}, {{"acc", {0.1}}}, 2);
  second->options.resume = Resume::automatic();
  EXPECT_EQ(train(*second), "");
  EXPECT_EQ(info(*second, "best_ckpt"), "best_acc_epoch_1.pth");
  files->retire("best_acc_epoch_1.pth");
  const auto run = make({.interval = 5, .save_last = false, .save_best = {"acc"}}, {{"acc", {0.9}}},
                        3, [](std::string_view name) {
                          if (name == "best_acc_epoch_3.pth") fail_write(name);
                        });
  run->options.resume = Resume::automatic();
  train(*run);
  EXPECT_EQ(info(*run, "best_ckpt"), "");
  EXPECT_EQ(info(*run, "best_score"), "0.5");
}

// The only save of the run, long before its end.
TEST_F(FailedSaveTest, UnderStopADiscardedStateIsTakenAgainFirst) {
  test::Hold hold;
  const auto run = make({.interval = 99,
                         .save_begin = 1,
                         .save_last = false,
                         .save_best = {"acc"},
                         .mode = StageMode::kLazy,
                         .on_error = OnSaveError::kStop},
                        {{"acc", {0.5}}}, 50, [&](std::string_view name) {
                          if (name == "epoch_1.pth") hold.enter();
                        });
  run->parts.hooks.add(
      test::on_event<AfterVal>([&](const AfterVal&, RunContext&) { hold.release(); }, "Releases"));
  test::discard_capture(*run, 1);
  EXPECT_THAT(train(*run), HasSubstr("on_error is stop"));
  EXPECT_THAT(told, Contains(HasSubstr("discarded epoch_1.pth")));
  EXPECT_EQ(checkpoints().size(), 1u);
}

}  // namespace
}  // namespace millrace
