#include "millrace/runtime/engine/sampler.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <set>
#include <vector>

namespace millrace {
namespace {

using ::testing::ElementsAre;

std::vector<std::int64_t> order_of(const Sampler& sampler) {
  return {sampler.order().begin(), sampler.order().end()};
}

// Computed by another program from the generator's definition. A file saved in the middle of an
// epoch relies on these orders for ever.
TEST(Sampler, TheOrderIsPartOfTheFilePromise) {
  Sampler sampler(12, true, 0);
  EXPECT_THAT(order_of(sampler), ElementsAre(4, 1, 6, 8, 0, 5, 2, 3, 11, 9, 10, 7));
  sampler.set_seed(1);
  EXPECT_THAT(order_of(sampler), ElementsAre(4, 6, 7, 9, 11, 3, 10, 1, 2, 0, 8, 5));
  sampler.set_seed(42);
  EXPECT_THAT(order_of(sampler), ElementsAre(9, 6, 7, 10, 3, 11, 4, 2, 0, 8, 5, 1));
  const Sampler large(1000, true, 7);
  const std::vector<std::int64_t> order = order_of(large);
  EXPECT_THAT(std::vector(order.begin(), order.begin() + 5), ElementsAre(426, 57, 118, 82, 134));
  EXPECT_THAT(std::vector(order.end() - 3, order.end()), ElementsAre(210, 726, 487));
}

TEST(Sampler, AnEpochIsThePermutationOfSeedPlusEpoch) {
  Sampler sampler(12, true, 3);
  sampler.set_epoch(2);
  EXPECT_EQ(order_of(sampler), order_of(Sampler(12, true, 5)));
  std::set<std::vector<std::int64_t>> orders;
  for (std::int64_t epoch = 0; epoch < 20; ++epoch) {
    sampler.set_epoch(epoch);
    EXPECT_EQ(sampler.epoch(), epoch);
    std::vector<std::int64_t> order = order_of(sampler);
    EXPECT_TRUE(orders.insert(order).second) << "epoch " << epoch;
    std::sort(order.begin(), order.end());
    EXPECT_EQ(order, order_of(Sampler(12, false, 0)));
  }
  sampler.set_epoch(0);
  EXPECT_TRUE(orders.contains(order_of(sampler))) << "an epoch can be found again";
}

TEST(Sampler, WithoutShuffleTheOrderIsTheDataSets) {
  Sampler sampler(4, false, 9);
  sampler.set_epoch(3);
  sampler.set_seed(5);
  EXPECT_THAT(order_of(sampler), ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(sampler.size(), 4);
}

TEST(Sampler, NothingAndOneSampleNeedNoOrder) {
  EXPECT_EQ(Sampler(0, true, 1).size(), 0);
  EXPECT_THAT(order_of(Sampler(1, true, 1)), ElementsAre(0));
}

}  // namespace
}  // namespace millrace
