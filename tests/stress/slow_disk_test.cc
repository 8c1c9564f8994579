// A disk that needs the time of twenty save intervals for one save. Training goes on as the option
// says, every save that was due is accounted for, and memory stays where it is.
#include <gtest/gtest.h>

#include "millrace/hooks/default_hooks.h"
#include "millrace/io/local_storage.h"
#include "millrace/runtime/engine/checkpointer.h"
#include "tests/support/fake_run.h"
#include "tests/support/process_usage.h"
#include "tests/support/step_paced_storage.h"
#include "tests/support/stress.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

constexpr std::int64_t kInterval = 10;
constexpr std::int64_t kSlow = 20;  // intervals a save takes
constexpr std::size_t kFloats = 8000;
constexpr std::uint64_t kStateBytes = 6 * kFloats * sizeof(float);

constexpr std::int64_t kSampleEvery = 50;

class SlowDisk {
 public:
  explicit SlowDisk(OnBusy on_busy) : on_busy_(on_busy), run_(dir_.path() / "run", {kFloats}) {
    iters_ = static_cast<std::int64_t>(test::stress_count(6'000, 100'000)) / kInterval * kInterval;
    run_.options.max_iters = iters_;
    run_.options.scalar_history = 64;
    run_.options.log_sink = [this](LogLevel, std::string_view line) {
      skip_lines_ += line.find("Skipped saving ") != std::string_view::npos;
      replace_lines_ += line.find("Gave up saving ") != std::string_view::npos;
    };
    run_.parts.storage = std::make_unique<test::StepPacedStorage>(
        std::make_unique<LocalStorage>(run_.options.work_dir), pace_);
    run_.parts.hooks = default_hooks(
        {.logger = {.interval = 100},
         .checkpoint = {
             .interval = kInterval, .by_epoch = false, .max_keep_ckpts = 2, .on_busy = on_busy}});
    run_.parts.hooks.add(std::make_unique<test::TestHook>(
        [this](Subscriptions& on, RunContext& context) { subscribe(on, context); }, "Disk",
        Priority::kHighest));
  }

  void train() {
    run_.train();
    EXPECT_FALSE(pace_->starved()) << "training waited for the disk";
    EXPECT_EQ(test::growth(samples_, test::kDuringSaves), "");
    EXPECT_EQ(counts_.committed + counts_.skipped + counts_.replaced, due());
    EXPECT_EQ(counts_.failed + counts_.discarded, 0u);
    EXPECT_EQ(committed_, counts_.committed);
    EXPECT_EQ(captured_, counts_.committed + counts_.replaced);
    EXPECT_EQ(skipped_, counts_.skipped);
    EXPECT_EQ(replaced_, counts_.replaced);
    EXPECT_EQ(skip_lines_, counts_.skipped);
    EXPECT_EQ(replace_lines_, counts_.replaced);
  }
  std::string text() const {
    return std::to_string(iters_) + " iterations, " + std::to_string(due()) + " saves due, " +
           std::to_string(counts_.committed) + " committed, " + std::to_string(counts_.skipped) +
           " skipped, " + std::to_string(counts_.replaced) + " replaced, " +
           std::to_string(steps_beside_) + " steps beside a save; " +
           test::usage_text(samples_.back());
  }

  std::uint64_t due() const { return static_cast<std::uint64_t>(iters_ / kInterval); }
  const Checkpointer::Counts& counts() const { return counts_; }
  // Steps that ended while a save was on its way.
  std::uint64_t steps_beside() const { return steps_beside_; }
  const test::StepPace& pace() const { return *pace_; }

 private:
  void subscribe(Subscriptions& on, RunContext& context) {
    on.every<AfterTrainIter>([this](const AfterTrainIter& e) {
      const std::int64_t done = e.at.iter + 1;
      pace_->step();
      steps_beside_ += on_the_way_ > 0;
      if (done % kSampleEvery == 0) samples_.push_back(test::process_usage());
      const bool is_last = done == iters_;  // its save is never dropped, and the run then ends
      const bool waits = on_busy_ == OnBusy::kWait && done % kInterval == 0;
      if (is_last || waits) pace_->training_waits(true);
    });
    on.every<CheckpointCaptured>([this](const CheckpointCaptured& e) {
      ++captured_;
      ++on_the_way_;
      if (e.row.iter < iters_) pace_->training_waits(false);
    });
    on.every<CheckpointCommitted>([this](const CheckpointCommitted&) {
      ++committed_;
      --on_the_way_;
    });
    on.every<CheckpointReplaced>([this](const CheckpointReplaced&) {
      ++replaced_;
      --on_the_way_;
    });
    on.every<CheckpointSkipped>([this](const CheckpointSkipped&) { ++skipped_; });
    on.every<AfterRun>(
        [this, &context](const AfterRun&) { counts_ = context.checkpointer.counts(); });
  }

  test::TempDir dir_;
  OnBusy on_busy_;
  std::int64_t iters_ = 0;
  std::shared_ptr<test::StepPace> pace_ =
      std::make_shared<test::StepPace>(kStateBytes / (kSlow * kInterval));
  std::vector<test::ProcessUsage> samples_;
  std::uint64_t captured_ = 0, committed_ = 0, skipped_ = 0, replaced_ = 0, steps_beside_ = 0;
  std::int64_t on_the_way_ = 0;
  std::uint64_t skip_lines_ = 0, replace_lines_ = 0;
  Checkpointer::Counts counts_;
  test::FakeRun run_;
};

TEST(SlowDisk, SkipTrainsOnAndTakesWhatTheDiskCan) {
  SlowDisk disk(OnBusy::kSkip);
  disk.train();
  // All but the last are written beside the steps, at the disk's pace.
  const std::uint64_t committed = disk.counts().committed;
  ASSERT_GE(committed, 3u);
  EXPECT_GE(disk.steps_beside(), (committed - 2) * kSlow * kInterval);
  EXPECT_GE(disk.pace().during_steps(), (committed - 2) * kStateBytes);
  EXPECT_GE(disk.counts().skipped, (committed - 2) * (kSlow - 1));
  test::stress_report("slow disk: skip, " + disk.text());
}

TEST(SlowDisk, ReplaceTrainsOnAndKeepsTheNewest) {
  SlowDisk disk(OnBusy::kReplace);
  disk.train();
  const std::uint64_t committed = disk.counts().committed;
  ASSERT_GE(committed, 3u);
  EXPECT_EQ(disk.counts().skipped, 0u);
  // The last two are there when training ends: one being written, one in the slot.
  EXPECT_GE(disk.steps_beside(), (committed - 2) * kSlow * kInterval);
  EXPECT_GE(disk.counts().replaced, (committed - 3) * (kSlow - 2));
  test::stress_report("slow disk: replace, " + disk.text());
}

TEST(SlowDisk, WaitWritesEveryFileAndTrainingWaits) {
  SlowDisk disk(OnBusy::kWait);
  disk.train();
  EXPECT_EQ(disk.counts().committed, disk.due());
  // Ten steps are the time of a twentieth of a save: the rest of it training waited for.
  EXPECT_GE(disk.pace().during_waits(), disk.due() * kStateBytes * (kSlow - 2) / kSlow);
  test::stress_report("slow disk: wait, " + disk.text());
}

}  // namespace
}  // namespace millrace
