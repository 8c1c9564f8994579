// Checkpoint semantics: validations whose metrics are not all there (2.6.1, 2.9.16, 2.9.29), and
// the time line of a run with regular and best files (2.10). Index: checkpoint_semantics_test.cc.
#include <gmock/gmock.h>

#include "millrace/runtime/engine/checkpointer.h"
#include "millrace/runtime/engine/message_hub.h"
#include "tests/hooks/checkpoint_scenario.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

using Names = std::vector<std::string>;

CheckpointHookOptions best_of(std::string metric) {
  return {.save_last = false, .save_best = {std::move(metric)}};
}

// ---- 2.6.1: metrics that are not there

// Gives one list at each validation, and does not say beforehand which names are in it.
class NamelessMetrics final : public Metric {
 public:
  explicit NamelessMetrics(std::vector<std::vector<MetricValue>> each) : each_(std::move(each)) {}
  void reset() override {}
  void process(const TensorView&, const Batch&) override {}
  std::vector<MetricValue> compute() override { return each_[next_++ % each_.size()]; }

 private:
  std::vector<std::vector<MetricValue>> each_;
  std::size_t next_ = 0;
};

std::unique_ptr<test::FakeRun> nameless(test::Folder& folder, const test::Scenario& scenario,
                                        std::vector<std::vector<MetricValue>> each) {
  test::Scenario with_validation = scenario;
  with_validation.scores = {{"unused", {0}}};
  auto run = folder.make(with_validation);
  run->parts.metrics.clear();
  run->parts.metrics.push_back(std::make_unique<NamelessMetrics>(std::move(each)));
  return run;
}

TEST(Best, 2_6_1_EmptyMetricsAreAWarningWithAndWithoutSaveBest) {
  for (const auto& save_best : {Names{}, Names{"acc"}}) {
    test::Folder folder;
    const auto run =
        nameless(folder, {.hook = {.interval = 1, .save_best = save_best}, .epochs = 1}, {{}});
    run->train();
    EXPECT_THAT(run->log->with("is an empty dict, the behavior to save the best checkpoint will "
                               "be skipped in this evaluation."),
                SizeIs(1));
    EXPECT_THAT(folder.files(), ElementsAre("epoch_1.pth"));
  }
}

TEST(Best, 2_6_4_AutoWaitsForMetricsThatAreThere) {
  test::Folder folder;
  const auto run =
      nameless(folder, {.hook = best_of("auto"), .epochs = 2}, {{}, {{"loss", 2}, {"acc", 1}}});
  run->train();
  EXPECT_THAT(folder.files(), ElementsAre("best_loss_epoch_2.pth"));
}

TEST(Best, 2_9_16_AMissingMetricEndsTheRunAtTheFirstValidation) {
  test::Folder folder;
  const auto run =
      nameless(folder, {.hook = best_of("acc"), .epochs = 2}, {{{"accc", 1}, {"loss", 2}}});
  std::string text, nearest;
  try {
    run->train();
  } catch (const std::exception& error) {
    text = error.what();
  }
  EXPECT_THAT(text, HasSubstr("CheckpointHook.save_best: the validation gives no metric 'acc'; it "
                              "gives accc, loss (did you mean 'accc'?)"));
  EXPECT_EQ(run->runner().progress().epoch, 1);
}

TEST(Best, 2_9_29_AMetricThatDisappearsLaterIsAWarning_Ours) {
  test::Folder folder;
  const auto run = nameless(folder, {.hook = best_of("acc"), .epochs = 3},
                            {{{"acc", 0.5}}, {{"loss", 1}}, {{"acc", 0.75}}});
  run->train();
  EXPECT_THAT(run->log->with("The metric 'acc' is missing in this evaluation"), SizeIs(1));
  EXPECT_THAT(folder.files(), ElementsAre("best_acc_epoch_3.pth"));
}

TEST(Best, 2_9_16_ARuleThatCannotBeInferredForAutoEndsTheRun) {
  test::Folder named;
  const auto before = named.train({.hook = best_of("auto"), .scores = {{"weird", {1}}}});
  EXPECT_THAT(named.error(), HasSubstr("Cannot infer the rule for key weird, thus a specific rule "
                                       "must be specified"));
  EXPECT_EQ(before->runner().progress().iter, 0) << "ours: before training";
  test::Folder folder;
  const auto after = nameless(folder, {.hook = best_of("auto"), .epochs = 2}, {{{"weird", 1}}});
  EXPECT_ANY_THROW(after->train());
  EXPECT_EQ(after->runner().progress().epoch, 1) << "where names are not known, as the reference";
}

// ---- 2.10: the time line

struct Moment {
  std::string point;
  Names files;
  std::string keep_ids, last;
  bool operator==(const Moment&) const = default;
};
void PrintTo(const Moment& moment, std::ostream* out) {
  *out << moment.point << ":";
  for (const std::string& file : moment.files) *out << " " << file;
  *out << "; " << moment.keep_ids << "; " << moment.last;
}

Task<> note(std::string point, RunContext* run, const test::Folder* folder,
            std::vector<Moment>* moments) {
  co_await run->checkpointer.drain();
  const std::string hub = test::hub_text(run->hub.python_state());
  const auto first = hub.find("keep_ckpt_ids=");
  const std::string ids = hub.substr(first, hub.find(' ', first) - first);
  moments->push_back({std::move(point), folder->files(), ids, folder->pointer()});
}

TEST(TimeLine, 2_10_ByEpochWithTwoKeptAndABest) {
  test::Folder folder;
  std::vector<Moment> moments;
  const auto run = folder.make({.hook = {.interval = 1, .save_best = {"acc"}, .max_keep_ckpts = 2},
                                .epochs = 3,
                                .scores = {{"acc", {0.1, 0.5, 0.3}}}});
  run->parts.hooks.add(std::make_unique<test::TestHook>(
      [&](Subscriptions& on, RunContext& context) {
        on.awaited<AfterTrainEpoch>([&](const AfterTrainEpoch& e) {
          return note("epoch " + std::to_string(e.at.epoch + 1), &context, &folder, &moments);
        });
        on.awaited<AfterVal>([&](const AfterVal& e) {
          return note("val " + std::to_string(e.at.epoch), &context, &folder, &moments);
        });
      },
      "Notes"));
  run->train();
  EXPECT_THAT(
      moments,
      ElementsAre(
          Moment{"epoch 1", {"epoch_1.pth"}, "keep_ckpt_ids=[1]", "epoch_1.pth"},
          Moment{
              "val 1", {"best_acc_epoch_1.pth", "epoch_1.pth"}, "keep_ckpt_ids=[1]", "epoch_1.pth"},
          Moment{"epoch 2",
                 {"best_acc_epoch_1.pth", "epoch_1.pth", "epoch_2.pth"},
                 "keep_ckpt_ids=[1,2]",
                 "epoch_2.pth"},
          Moment{"val 2",
                 {"best_acc_epoch_2.pth", "epoch_1.pth", "epoch_2.pth"},
                 "keep_ckpt_ids=[1,2]",
                 "epoch_2.pth"},
          Moment{"epoch 3",
                 {"best_acc_epoch_2.pth", "epoch_2.pth", "epoch_3.pth"},
                 "keep_ckpt_ids=[2,3]",
                 "epoch_3.pth"},
          Moment{"val 3",
                 {"best_acc_epoch_2.pth", "epoch_2.pth", "epoch_3.pth"},
                 "keep_ckpt_ids=[2,3]",
                 "epoch_3.pth"}));
  // The reference's texts and their order, at each new best.
  EXPECT_THAT(
      run->log->with("best checkpoint"),
      ElementsAre(HasSubstr("The best checkpoint with 0.1000 acc at 1 epoch is saved to "
                            "best_acc_epoch_1.pth."),
                  HasSubstr("The previous best checkpoint " +
                            (folder.work_dir() / "best_acc_epoch_1.pth").string() + " is removed"),
                  HasSubstr("The best checkpoint with 0.5000 acc at 2 epoch is saved to "
                            "best_acc_epoch_2.pth.")));
}

}  // namespace
}  // namespace millrace
