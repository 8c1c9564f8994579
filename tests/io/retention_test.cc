#include "millrace/io/retention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <set>

namespace millrace {
namespace {

using Names = std::vector<std::string>;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

RetainedFile file(std::int64_t id) {
  return {std::to_string(id), "id" + std::to_string(id), id, id, false};
}

std::vector<RetainedFile> files(const std::vector<std::int64_t>& ids) {
  std::vector<RetainedFile> all;
  for (const std::int64_t id : ids) all.push_back(file(id));
  return all;
}

Names names(const std::vector<RetainedFile>& all) {
  Names found;
  for (const RetainedFile& each : all) found.push_back(each.name);
  return found;
}

RetentionRules last(std::int64_t count) {
  RetentionRules rules;
  rules.last = count;
  return rules;
}

// ---- the newest N

struct Row {
  const char* what;
  std::int64_t last;
  std::vector<std::int64_t> before;
  std::int64_t id;
  Names victims, after;
};

const Row kTable[] = {
    {"the first file", 2, {}, 1, {}, {"1"}},
    {"not full", 3, {1, 2}, 3, {}, {"1", "2", "3"}},
    {"full", 2, {1, 2}, 3, {"1"}, {"2", "3"}},
    {"keeping one", 1, {7}, 8, {"7"}, {"8"}},
    {"the newest again", 2, {1, 2}, 2, {}, {"1", "2"}},
    {"keeping one, the newest again", 1, {7}, 7, {}, {"7"}},
    {"an older one again", 3, {1, 2, 3}, 2, {}, {"1", "3", "2"}},
    {"a smaller step than listed", 2, {8, 10}, 9, {"8"}, {"10", "9"}},
    {"a longer list than allowed", 2, {1, 2, 3, 4}, 5, {"1", "2", "3"}, {"4", "5"}},
    {"a surplus one again", 2, {1, 2, 3, 4}, 1, {"2", "3"}, {"4", "1"}},
    {"a list with repeats", 2, {1, 2, 1}, 3, {"2"}, {"1", "3"}},
    {"no limit", -1, {1, 2}, 3, {}, {}},
    {"zero is no limit", 0, {1, 2}, 3, {}, {}},
};

class LastTable : public ::testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(Table, LastTable, ::testing::ValuesIn(kTable));

TEST_P(LastTable, GivesUpTheOldest) {
  const Row& row = GetParam();
  SCOPED_TRACE(row.what);
  Retention kept(last(row.last));
  kept.restore(files(row.before));
  EXPECT_EQ(names(kept.ahead({file(row.id)}).newest()), row.after);
  EXPECT_EQ(kept.committed(file(row.id)), row.victims);
  EXPECT_EQ(names(kept.files()), row.after);
  EXPECT_EQ(names(kept.newest()), row.after);
}

TEST(Retention, LookingAheadChangesNothing) {
  Retention kept(last(2));
  kept.restore(files({1, 2}));
  kept.ahead(files({3, 4}));
  EXPECT_THAT(names(kept.files()), ElementsAre("1", "2"));
  // The save of 3 failed; the next one gives up the same file.
  EXPECT_THAT(kept.committed(file(4)), ElementsAre("1"));
  EXPECT_THAT(names(kept.files()), ElementsAre("2", "4"));
}

// What the file of 3 says about itself is the list before its commit, and itself.
TEST(Retention, CrashBetweenCommitAndRetireLeavesNoOrphan) {
  Retention kept(last(2));
  kept.restore(files({1, 2}));
  std::vector<RetainedFile> in_file_3 = kept.files();
  in_file_3.push_back(file(3));
  kept.committed(file(3));  // and the process dies before 1 is retired
  Retention resumed(last(2));
  resumed.restore(in_file_3);
  EXPECT_THAT(names(resumed.newest()), ElementsAre("2", "3"));
  EXPECT_THAT(resumed.committed(file(4)), ElementsAre("1", "2"));
}

TEST(Retention, WithoutALimitNothingIsEverGivenUp) {
  Retention kept;
  for (std::int64_t id = 1; id < 100; ++id) EXPECT_THAT(kept.committed(file(id)), IsEmpty());
}

// ---- the other rules

TEST(Retention, AnUnknownPinMeansKeep) {
  Retention kept(last(1));
  RetainedFile unknown = file(1);
  unknown.pinned = std::nullopt;
  kept.committed(unknown);
  EXPECT_THAT(kept.committed(file(2)), IsEmpty());
  EXPECT_THAT(kept.committed(file(3)), ElementsAre("2"));
  EXPECT_THAT(names(kept.newest()), ElementsAre("3"));
}

TEST(Retention, UnpinningGivesUpAtOnce) {
  Retention kept(last(1));
  kept.committed(file(1));
  EXPECT_THAT(kept.pin("1", true), IsEmpty());
  EXPECT_THAT(kept.committed(file(2)), IsEmpty());
  EXPECT_THAT(kept.pin("2", false), IsEmpty()) << "the newest stays";
  EXPECT_THAT(kept.pin("absent", false), IsEmpty());
  EXPECT_THAT(kept.pin("1", false), ElementsAre("1"));
}

TEST(Retention, AFileInsideAnEpochIsNoMultiple) {
  RetentionRules rules = last(1);
  rules.every = 2;
  Retention kept(rules);
  RetainedFile inside = file(2);
  inside.step = std::nullopt;
  kept.committed(inside);
  EXPECT_THAT(kept.committed(file(4)), ElementsAre("2"));
  EXPECT_THAT(kept.committed(file(5)), IsEmpty());
}

// The definition, evaluated over everything that ever happened.
std::set<std::string> defined(const RetentionRules& rules, const std::vector<RetainedFile>& history,
                              const std::set<std::string>& gone) {
  std::set<std::string> kept;
  std::int64_t span_start = std::numeric_limits<std::int64_t>::min();
  for (std::size_t i = 0; i < history.size(); ++i) {
    const RetainedFile& each = history[i];
    const bool newest = history.size() - i <= static_cast<std::size_t>(rules.last);
    const bool multiple = rules.every > 0 && each.step && *each.step % rules.every == 0;
    bool starts = false;
    if (rules.per.count() > 0 && (span_start == std::numeric_limits<std::int64_t>::min() ||
                                  each.saved_at_ns >= span_start + rules.per.count())) {
      starts = true;
      span_start = each.saved_at_ns;
    }
    if (newest || multiple || starts || each.pinned.value_or(true)) kept.insert(each.name);
  }
  for (const std::string& name : gone) kept.erase(name);  // a pin does not bring a file back
  return kept;
}

TEST(Retention, EveryRuleOverRandomHistories) {
  for (std::uint32_t seed = 0; seed < 500; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto draw = [&](std::int64_t low, std::int64_t high) {
      return std::uniform_int_distribution<std::int64_t>(low, high)(random);
    };
    RetentionRules rules = last(draw(1, 4));
    if (draw(0, 1) == 1) rules.every = draw(2, 6);
    if (draw(0, 1) == 1) rules.per = std::chrono::nanoseconds(draw(5, 40));
    Retention kept(rules);
    std::vector<RetainedFile> history;
    std::set<std::string> there, gone;
    std::int64_t step = 0, time = 0;
    const auto retire = [&](const Names& victims) {
      for (const std::string& name : victims) {
        EXPECT_TRUE(there.erase(name)) << name << " given up twice";
        gone.insert(name);
      }
    };
    for (int i = 0; i < 60; ++i) {
      if (draw(0, 4) > 0 || history.empty()) {
        step += draw(1, 3);
        time += draw(1, 12);
        RetainedFile next{std::to_string(step), "", step, time, draw(0, 9) == 0};
        if (draw(0, 7) == 0) next.step = std::nullopt;
        if (draw(0, 15) == 0) next.pinned = std::nullopt;
        history.push_back(next);
        there.insert(next.name);
        retire(kept.committed(next));
      } else {
        RetainedFile& picked = history[static_cast<std::size_t>(draw(0, history.size() - 1))];
        if (gone.contains(picked.name)) continue;
        picked.pinned = draw(0, 1) == 1;
        retire(kept.pin(picked.name, *picked.pinned));
      }
      // Unpinning looks at all files; pinning alone gives nothing up.
      ASSERT_EQ(there, defined(rules, history, gone));
      ASSERT_TRUE(there.contains(history.back().name));
      if (draw(0, 9) == 0) {  // a resume in between
        Retention resumed(rules);
        resumed.restore(kept.files());
        kept = resumed;
      }
    }
  }
}

// ---- best

const BetterScore kGreater = [](double a, double b) { return a > b; };

Names best_names(const BestFiles& best) {
  Names found;
  for (const BestFile& each : best.files()) found.push_back(each.name);
  return found;
}

TEST(BestFiles, OfEqualScoresTheEarliestStays) {
  BestFiles best(kGreater, 1);
  EXPECT_TRUE(best.qualifies(0.5));
  best.committed({"a", "", 0.5});
  EXPECT_FALSE(best.qualifies(0.5));
  EXPECT_FALSE(best.qualifies(0.4));
  EXPECT_FALSE(best.qualifies(std::numeric_limits<double>::quiet_NaN()));
  EXPECT_TRUE(best.qualifies(0.6));
  EXPECT_THAT(best.committed({"b", "", 0.6}), ElementsAre("a"));
  EXPECT_EQ(best.best()->name, "b");
}

TEST(BestFiles, UnknownScoresAreNeverGivenUp) {
  BestFiles best(kGreater, 1);
  best.restore({{"lost", "", std::nullopt}, {"a", "", 0.5}});
  EXPECT_THAT(best.committed({"b", "", 0.9}), ElementsAre("a"));
  EXPECT_THAT(best_names(best), ElementsAre("lost", "b"));
  EXPECT_EQ(best.best()->name, "b");
}

TEST(BestFiles, KeepsTheBestKOverRandomHistories) {
  for (std::uint32_t seed = 0; seed < 500; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const std::int64_t count = 1 + seed % 4;
    const bool greater = seed % 2 == 0;
    const BetterScore better = [greater](double a, double b) { return greater ? a > b : a < b; };
    BestFiles best(better, count);
    std::vector<std::pair<double, int>> history;  // every score so far, and when
    std::set<std::string> there;
    for (int i = 0; i < 40; ++i) {
      const double score = std::uniform_int_distribution<int>(0, 12)(random);
      history.emplace_back(score, i);
      if (best.qualifies(score)) {
        there.insert(std::to_string(i));
        for (const std::string& gone : best.committed({std::to_string(i), "", score})) {
          EXPECT_TRUE(there.erase(gone));
        }
      }
      std::vector<std::pair<double, int>> ranked = history;
      std::sort(ranked.begin(), ranked.end(), [&](const auto& a, const auto& b) {
        if (better(a.first, b.first) || better(b.first, a.first)) return better(a.first, b.first);
        return a.second < b.second;
      });
      ranked.resize(std::min<std::size_t>(ranked.size(), static_cast<std::size_t>(count)));
      std::set<std::string> expected;
      for (const auto& [value, when] : ranked) expected.insert(std::to_string(when));
      ASSERT_EQ(there, expected);
    }
  }
}

}  // namespace
}  // namespace millrace
