// The loops by their events: which, in what order, with which counters.
#include "millrace/runtime/engine/loop.h"

#include <gmock/gmock.h>

#include "tests/support/fake_run.h"
#include "tests/support/stage_log.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct LoopTest : ::testing::Test {
  // Six samples in batches of 3: 2 iterations an epoch.
  LoopTest() : run(dir.path() / "run") {
    run.parts.train = loader(test::fake_dataset(6), {.batch_size = 3});
    run.parts.hooks.add(std::make_unique<test::StageLog>(events));
  }
  // The counters at every `name`.
  std::vector<std::string> at(const std::string& name) const {
    std::vector<std::string> found;
    for (const std::string& line : events) {
      if (line.starts_with(name + " ")) found.push_back(line.substr(name.size() + 1));
    }
    return found;
  }

  test::TempDir dir;
  test::FakeRun run;
  std::vector<std::string> events;
};

TEST_F(LoopTest, EpochRunPublishesEveryStageInOrder) {
  run.options.max_epochs = 2;
  run.options.val_begin = 2;
  run.validate();
  run.train();
  EXPECT_THAT(
      events,
      ElementsAre(
          "before_run e0 i0", "before_train e0 i0", "before_train_epoch e0 i0",
          "before_train_iter e0 i0 b0", "before_optimizer_step e0 i0", "after_train_iter e0 i0 b0",
          "before_train_iter e0 i1 b1", "before_optimizer_step e0 i1", "after_train_iter e0 i1 b1",
          "after_train_epoch e0 i2",  //
          "before_train_epoch e1 i2", "before_train_iter e1 i2 b0", "before_optimizer_step e1 i2",
          "after_train_iter e1 i2 b0", "before_train_iter e1 i3 b1", "before_optimizer_step e1 i3",
          "after_train_iter e1 i3 b1", "after_train_epoch e1 i4",  //
          "before_val e2 i4", "before_val_epoch e2 i4", "before_val_iter e2 i4 b0",
          "after_val_iter e2 i4 b0", "before_val_iter e2 i4 b1", "after_val_iter e2 i4 b1",
          "after_val_epoch e2 i4", "after_val e2 i4", "after_train e2 i4", "after_run e2 i4"));
}

TEST_F(LoopTest, IterationRunIsOneBigEpoch) {
  run.options.max_iters = 3;
  run.options.val_interval = 2;
  run.validate();
  run.train();
  EXPECT_THAT(events,
              ElementsAre("before_run e0 i0", "before_train e0 i0", "before_train_epoch e0 i0",
                          "before_train_iter e0 i0 b0", "before_optimizer_step e0 i0",
                          "after_train_iter e0 i0 b0", "before_train_iter e0 i1 b1",
                          "before_optimizer_step e0 i1",
                          "after_train_iter e0 i1 b1",  //
                          "before_val e0 i2", "before_val_epoch e0 i2", "before_val_iter e0 i2 b0",
                          "after_val_iter e0 i2 b0", "before_val_iter e0 i2 b1",
                          "after_val_iter e0 i2 b1", "after_val_epoch e0 i2", "after_val e0 i2",  //
                          "before_train_iter e0 i2 b2", "before_optimizer_step e0 i2",
                          "after_train_iter e0 i2 b2",  //
                          "before_val e0 i3", "before_val_epoch e0 i3", "before_val_iter e0 i3 b0",
                          "after_val_iter e0 i3 b0", "before_val_iter e0 i3 b1",
                          "after_val_iter e0 i3 b1", "after_val_epoch e0 i3", "after_val e0 i3",  //
                          "after_train_epoch e0 i3", "after_train e0 i3", "after_run e0 i3"));
}

struct Plan {
  std::int64_t begin, interval;
  std::vector<std::string> after;
};
class ValPlanTest : public LoopTest, public ::testing::WithParamInterface<Plan> {};

// The reference's examples for a run of seven epochs.
TEST_P(ValPlanTest, ValidatesWhereTheReferenceDoes) {
  run.options.max_epochs = 7;
  run.options.val_begin = GetParam().begin;
  run.options.val_interval = GetParam().interval;
  run.validate();
  run.train();
  EXPECT_EQ(at("before_val"), GetParam().after);
}
INSTANTIATE_TEST_SUITE_P(, ValPlanTest,
                         ::testing::Values(Plan{1, 3, {"e3 i6", "e6 i12", "e7 i14"}},
                                           Plan{4, 3, {"e6 i12", "e7 i14"}},
                                           Plan{1, 100, {"e7 i14"}}, Plan{8, 3, {}},
                                           Plan{0, 7, {"e7 i14"}}));

TEST_F(LoopTest, IterationRunsValidateEveryThousandByDefaultAndAtTheEnd) {
  run.options.max_iters = 1001;
  run.validate();
  run.train();
  EXPECT_THAT(at("before_val"), ElementsAre("e0 i1000", "e0 i1001"));
}

TEST_F(LoopTest, WithoutAValidationLoaderNothingIsValidated) {
  run.options.max_epochs = 2;
  run.train();
  EXPECT_THAT(at("before_val"), IsEmpty());
}

TEST_F(LoopTest, MetricsAreThoseOfThisValidation) {
  run.options.max_epochs = 2;
  run.validate();
  std::vector<double> values;
  run.parts.hooks.add(test::on_event<AfterValEpoch>([&](const AfterValEpoch& e, RunContext&) {
    ASSERT_EQ(e.metrics.size(), 1u);
    EXPECT_EQ(e.metrics[0].name, "accuracy");
    EXPECT_EQ(e.batches, 2);
    values.push_back(e.metrics[0].value);
  }));
  run.train();
  ASSERT_EQ(values.size(), 2u);
  for (const double value : values) EXPECT_TRUE(value >= 0 && value <= 1) << value;
}

// A strategy that accumulates publishes no optimizer step.
class Accumulating final : public Strategy {
 public:
  void prepare(std::uint64_t, StateGate&) override {}
  StepOutput forward_backward(const Batch&) override { return {{}, ++calls_ % 2 == 0}; }
  void optimizer_step() override { ++steps; }
  void predict(const Batch&) override {}
  TensorView scores() override { return {}; }
  std::span<double> learning_rates() override { return {}; }
  CapturedState capture(bool) override { return {}; }
  std::string save_rng() const override { return {}; }
  void load_rng(std::string_view) override {}
  LoadReport load_model(const CheckpointFile&, const LoadOptions&) override { return {}; }
  void load_optimizer(const CheckpointFile&) override {}
  bool uses_every_core() const override { return false; }
  int steps = 0;

 private:
  int calls_ = 0;
};

TEST_F(LoopTest, TheOptimizerStepsOnlyWhenItIsDue) {
  auto strategy = std::make_unique<Accumulating>();
  const Accumulating& watched = *strategy;
  run.parts.strategy = std::move(strategy);
  run.options.max_epochs = 2;
  run.train();
  EXPECT_EQ(watched.steps, 2);
  EXPECT_THAT(at("before_optimizer_step"), ElementsAre("e0 i1", "e1 i3"));
}

// Inline subscribers never suspend, so without the loop's own yield nobody else would run.
TEST_F(LoopTest, EveryIterationYieldsOnceAfterItsLastEvent) {
  run.options.max_iters = 3;
  run.parts.hooks.add(
      test::on_event<BeforeOptimizerStep>([&](const BeforeOptimizerStep& e, RunContext& context) {
        if (e.at.iter == 1) context.request_stop("enough");
      }));
  run.train();
  EXPECT_EQ(events.back(), "after_run e0 i2");
  EXPECT_THAT(std::vector(events.end() - 4, events.end()),
              ElementsAre("after_train_iter e0 i1 b1", "stop_requested e0 i2", "after_train e0 i2",
                          "after_run e0 i2"));
}

}  // namespace
}  // namespace millrace
