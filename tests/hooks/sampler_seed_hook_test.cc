#include "millrace/hooks/sampler_seed_hook.h"

#include <gtest/gtest.h>

#include <set>

#include "millrace/runtime/engine/data_loader.h"
#include "tests/support/fake_run.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using Order = std::vector<std::int64_t>;

// The order of every epoch as it was read.
std::vector<Order> orders(bool with_hook, bool by_epoch) {
  const test::TempDir dir;
  test::FakeRun run(dir.path() / "run");
  (by_epoch ? run.options.max_epochs : run.options.max_iters) = by_epoch ? 3 : 12;
  if (with_hook) run.parts.hooks.add(std::make_unique<DistSamplerSeedHook>());
  std::vector<Order> seen;
  run.parts.hooks.add(
      test::on_event<BeforeTrainIter>([&](const BeforeTrainIter& e, RunContext& context) {
        if (e.at.iter % 4 != 0) return;
        const auto order = context.train_loader->sampler().order();
        seen.emplace_back(order.begin(), order.end());
      }));
  run.train();
  return seen;
}

TEST(DistSamplerSeedHook, EveryEpochHasItsOwnOrder) {
  std::vector<Order> expected;
  for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
    const Sampler sampler(12, true, 1 + epoch);
    expected.emplace_back(sampler.order().begin(), sampler.order().end());
  }
  EXPECT_EQ(orders(true, true), expected);
  const auto without = orders(false, true);
  EXPECT_EQ(std::set<Order>(without.begin(), without.end()).size(), 1u);
}

TEST(DistSamplerSeedHook, AnIterationRunAdvancesByItself) {
  EXPECT_EQ(orders(true, false), orders(true, true));
  EXPECT_EQ(orders(false, false), orders(true, true));
}

}  // namespace
}  // namespace millrace
