// What staging costs, in counts: page faults, allocations, questions.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "millrace/runtime/staging/staging.h"
#include "tests/support/alloc_counter.h"
#include "tests/support/live_state.h"

namespace millrace {
namespace {

using test::LiveState;

long page_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

// Page faults of a save, up to the moment its last byte is staged.
long faults_of_a_save(Staging& staging, const LiveState& state, StageMode mode) {
  const long before = page_faults();
  const auto snapshot = staging.begin(state.captured, mode);
  snapshot->wait_all();
  const long faults = page_faults() - before;
  staging.gate().writable_all();
  return faults;
}

TEST(StagingCost, TheFirstSaveFaultsNoMoreThanLaterOnes) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer's shadow memory faults too";
#endif
  // 128 MiB: 64 faults when every page is huge, 32,768 when none is.
  constexpr long kBound = 24;
  std::vector<std::uint64_t> sizes(63, 2 << 20);
  sizes.resize(2000, 1000);
  const LiveState state(sizes);
  for (const StageMode mode : {StageMode::kLazy, StageMode::kEager}) {
    Staging staging;
    staging.reserve(state.captured);
    const long first = faults_of_a_save(staging, state, mode);
    for (int i = 0; i < 3; ++i) {
      EXPECT_LE(first, faults_of_a_save(staging, state, mode) + kBound) << stage_mode_name(mode);
    }
  }
  Staging unprepared;
  const long first = faults_of_a_save(unprepared, state, StageMode::kEager);
  EXPECT_GT(first, faults_of_a_save(unprepared, state, StageMode::kEager) + kBound)
      << "the count can tell";
}

struct Cost {
  std::uint64_t first_allocations, later_allocations;
  std::size_t claims, questions;
};

Cost cost_of(std::size_t storages) {
  Cost cost{};
  const LiveState state(std::vector<std::uint64_t>(storages, 100));
  Staging staging({.probe = [&](std::size_t) { ++cost.claims; }});
  staging.reserve(state.captured);
  const auto watch = std::make_shared<test::ScriptedWatch>([&](std::size_t) {
    ++cost.questions;
    return std::string();
  });
  for (std::uint64_t* allocations : {&cost.first_allocations, &cost.later_allocations}) {
    cost.claims = cost.questions = 0;
    const test::AllocationCount count;
    const auto snapshot = staging.begin(state.captured, StageMode::kLazy, watch);
    *allocations = count.so_far();
    EXPECT_TRUE(snapshot->staged());
  }
  return cost;
}

TEST(StagingCost, TenThousandSmallStoragesCostTenTimesAThousand) {
  const Cost thousand = cost_of(1'000), ten_thousand = cost_of(10'000);
  EXPECT_EQ(thousand.claims, 1'000u);
  EXPECT_EQ(ten_thousand.claims, 10'000u);
  EXPECT_EQ(thousand.questions, 1'000u);
  EXPECT_EQ(ten_thousand.questions, 10'000u);
  // No allocation at all by storage, once the first capture is known.
  EXPECT_EQ(thousand.later_allocations, ten_thousand.later_allocations);
  EXPECT_EQ(thousand.first_allocations, ten_thousand.first_allocations);
  EXPECT_LT(ten_thousand.later_allocations, 20u);
}

TEST(StagingCost, ANewTableTakesAFewAllocationsAndNotOneByStorage) {
  const auto allocations = [](std::size_t storages) {
    const LiveState state(std::vector<std::uint64_t>(storages, 100));
    const test::AllocationCount count;
    const SliceTable table(state.captured);
    return count.so_far();
  };
  const std::uint64_t thousand = allocations(1'000), ten_thousand = allocations(10'000);
  EXPECT_LE(ten_thousand, thousand + 20'000) << "at most two names by storage";
}

}  // namespace
}  // namespace millrace
