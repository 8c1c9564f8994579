#include "millrace/hooks/best_metric.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

struct Row {
  const char* key;
  const char* rule;  // inferred; empty: cannot be
};

// 2.2.7. The reference's order: exact greater, exact less, part of greater, part of less.
const Row kTable[] = {
    {"acc", "greater"},
    {"loss", "less"},
    {"val_loss", "less"},
    {"accuracy/top1", "greater"},
    {"coco/bbox_mAP", "greater"},
    {"MIOU", "greater"},
    {"AR@100", "greater"},
    {"auc", "greater"},
    {"precision", "greater"},
    {"heatmap_loss", "greater"},  // "map": said in the header
    {"acc_loss", "greater"},
    {"stop_loss", "greater"},
    {"loss_top", "greater"},
    {"LOSS", "less"},
    {"psnr", ""},
    {"weird", ""},
};

TEST(BestMetric, RulesAreInferredAsInTheReference) {
  for (const Row& row : kTable) {
    SCOPED_TRACE(row.key);
    if (*row.rule == '\0') {
      EXPECT_THROW(best_metric(row.key, "", {}), ConfigError);
    } else {
      EXPECT_EQ(best_metric(row.key, "", {}).rule, row.rule);
    }
  }
}

TEST(BestMetric, KeysOfTheOptionsReplaceTheDefaults) {
  EXPECT_EQ(best_metric("psnr", "", {.greater = {"psnr"}}).rule, "greater");
  EXPECT_THROW(best_metric("acc", "", {.greater = {"psnr"}}), ConfigError);
  EXPECT_EQ(best_metric("fid", "", {.less = {"fid"}}).rule, "less");
  EXPECT_EQ(best_metric("acc", "less", {}).rule, "less") << "a given rule is not inferred";
}

TEST(BestMetric, StartValuesAreTheReferences) {
  EXPECT_EQ(best_rule("greater").start, -std::numeric_limits<double>::infinity());
  EXPECT_EQ(best_rule("less").start, std::numeric_limits<double>::infinity());
}

TEST(BestMetric, ARuleOfOnesOwn) {
  BestRule nearest_to_one;
  nearest_to_one.better = [](double a, double b) { return std::abs(a - 1) < std::abs(b - 1); };
  nearest_to_one.start = std::numeric_limits<double>::infinity();
  nearest_to_one.default_keys = {"calibration"};
  register_best_rule("nearest_to_one", nearest_to_one);
  EXPECT_EQ(best_metric("calibration", "", {}).rule, "nearest_to_one");
  const BestMetric metric = best_metric("ratio", "nearest_to_one", {});
  EXPECT_TRUE(metric.compare.better(1.1, 0.5));
  EXPECT_TRUE(metric.compare.better(100, metric.compare.start));
  try {
    best_rule("nearest_to_on");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.nearest(), "nearest_to_one");
  }
}

TEST(BestMetric, StemsHaveNoSlash) { EXPECT_EQ(best_stem("accuracy/top1"), "best_accuracy_top1"); }

}  // namespace
}  // namespace millrace
