#include "millrace/runtime/engine/param_schedule.h"

#include <gmock/gmock.h>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

using pickle::Value;
using ::testing::HasSubstr;

// The values after construction and after each of `steps` steps.
std::vector<double> chain(double initial, const LinearLrOptions& options, int steps) {
  const auto schedule = linear_lr(options);
  std::vector<double> group = {initial};
  schedule->start(group);
  std::vector<double> values = group;
  for (int i = 0; i < steps; ++i) {
    schedule->step(group);
    values.push_back(group[0]);
  }
  return values;
}

// Computed with the reference's recurrence in another program, to the last bit.
TEST(LinearLr, ChainsAsTheReference) {
  EXPECT_EQ(chain(0.1, {.span = {.end = 5}}, 6),
            (std::vector<double>{0x1.1111111111111p-5, 0x1.999999999999ap-5, 0x1.1111111111112p-4,
                                 0x1.5555555555556p-4, 0x1.999999999999ap-4, 0x1.999999999999ap-4,
                                 0x1.999999999999ap-4}));
  EXPECT_EQ(chain(0.4, {.start_factor = 0.5, .span = {.begin = 2, .end = 5}}, 6),
            (std::vector<double>{0.4, 0.4, 0.2, 0.30000000000000004, 0.4, 0.4, 0.4}));
  EXPECT_EQ(chain(0.4, {.start_factor = 1, .end_factor = 0.25, .span = {.end = 4}}, 4),
            (std::vector<double>{0.4, 0.30000000000000004, 0.20000000000000004, 0.10000000000000002,
                                 0.10000000000000002}));
}

TEST(LinearLr, ASpanOfOneStepAppliesTheStartFactorOnly) {
  EXPECT_EQ(chain(1, {.start_factor = 0.5, .span = {.end = 1}}, 2),
            (std::vector<double>{0.5, 0.5, 0.5}));
}

std::string config_error(const LinearLrOptions& options) {
  try {
    linear_lr(options);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(LinearLr, ChecksItsOptions) {
  EXPECT_THAT(config_error({.span = {.begin = 5, .end = 5}}),
              HasSubstr("end: should be larger than begin, but got begin=5, end=5"));
  EXPECT_THAT(config_error({.start_factor = 0}), HasSubstr("start_factor"));
  EXPECT_THAT(config_error({.start_factor = 1.5}), HasSubstr("start_factor"));
  EXPECT_THAT(config_error({.end_factor = -0.1}), HasSubstr("end_factor"));
}

std::vector<std::unique_ptr<ParamSchedule>> two() {
  std::vector<std::unique_ptr<ParamSchedule>> schedules;
  schedules.push_back(linear_lr({.start_factor = 0.5, .span = {.end = 3, .by_epoch = false}}));
  schedules.push_back(linear_lr({.start_factor = 0.25, .span = {.end = 3, .by_epoch = true}}));
  return schedules;
}

TEST(ParamSchedules, MultiplyTogetherAndStepByTheirOwnUnit) {
  ParamSchedules schedules(two());
  std::vector<double> rates = {1, 2};
  schedules.start(rates);
  EXPECT_EQ(rates, (std::vector<double>{0.125, 0.25}));
  schedules.start(rates);
  EXPECT_EQ(rates[0], 0.125) << "start counts once";
  schedules.step(false, rates);
  EXPECT_EQ(rates[0], 0.1875);
  schedules.step(true, rates);
  EXPECT_EQ(rates[0], 0.1875 * 2.5);
}

TEST(ParamSchedules, StateHasTheReferencesNames) {
  ParamSchedules schedules(two());
  std::vector<double> rates = {1};
  schedules.start(rates);
  schedules.step(false, rates);
  const Value state = schedules.save();
  ASSERT_EQ(state.as_sequence()->size(), 2u);
  const Value& first = state.as_sequence()->front();
  std::vector<std::string> keys;
  for (const auto& [key, value] : *first.as_mapping()) keys.push_back(*key.as_string());
  EXPECT_THAT(
      keys, ::testing::UnorderedElementsAre("param_name", "begin", "end", "by_epoch", "base_values",
                                            "last_step", "_global_step", "verbose", "_last_value",
                                            "start_factor", "end_factor", "total_iters"));
  EXPECT_EQ(first.find("last_step")->as_int(), 1);
  EXPECT_EQ(first.find("_global_step")->as_int(), 1);
  EXPECT_EQ(first.find("total_iters")->as_int(), 2);
  EXPECT_EQ(first.find("base_values")->as_sequence()->front().as_double(), 1);
  EXPECT_EQ(first.find("_last_value")->as_sequence()->front().as_double(), 0.1875);
}

TEST(ParamSchedules, AResumedChainContinues) {
  ParamSchedules straight(two());
  std::vector<double> rates = {1};
  straight.start(rates);
  straight.step(false, rates);
  ParamSchedules resumed(two());
  std::vector<double> resumed_rates = {1};
  resumed.start(resumed_rates);
  resumed.load(straight.save(), "file");
  resumed_rates = rates;  // the optimizer's state has them
  for (int i = 0; i < 4; ++i) {
    straight.step(i % 2 == 0, rates);
    resumed.step(i % 2 == 0, resumed_rates);
    EXPECT_EQ(resumed_rates, rates) << i;
  }
  EXPECT_EQ(resumed.save(), straight.save());
}

TEST(ParamSchedules, AStateThatDoesNotFitIsACheckpointError) {
  const auto error_of = [](const Value& states) -> std::string {
    ParamSchedules schedules(two());
    try {
      schedules.load(states, "run/epoch_1.pth");
    } catch (const CheckpointError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(error_of(Value::list()), HasSubstr("holds 0 parameter schedules, this run has 2"));
  EXPECT_THAT(error_of(Value::dict()), HasSubstr("run/epoch_1.pth"));
  EXPECT_THAT(error_of(Value::list({Value(1), Value(2)})),
              HasSubstr("param_schedulers[0] is no mapping"));
  ParamSchedules other(two());
  Value state = other.save();
  Value broken = state.as_sequence()->back();
  broken.erase("last_step");
  EXPECT_THAT(error_of(state), HasSubstr("param_schedulers[1] lacks the key 'last_step'"));
}

}  // namespace
}  // namespace millrace
