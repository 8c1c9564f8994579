#include "millrace/io/retention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using Ids = std::vector<std::int64_t>;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Row {
  const char* what;
  std::int64_t max_keep;
  Ids before;
  std::int64_t id;
  Ids victims, after;
};

const Row kTable[] = {
    {"the first file", 2, {}, 1, {}, {1}},
    {"not full", 3, {1, 2}, 3, {}, {1, 2, 3}},
    {"full", 2, {1, 2}, 3, {1}, {2, 3}},
    {"keeping one", 1, {7}, 8, {7}, {8}},
    {"the newest again", 2, {1, 2}, 2, {}, {1, 2}},
    {"keeping one, the newest again", 1, {7}, 7, {}, {7}},
    {"an older one again", 3, {1, 2, 3}, 2, {}, {1, 3, 2}},
    {"a smaller step than listed", 2, {8, 10}, 9, {8}, {10, 9}},
    {"a longer list than allowed", 2, {1, 2, 3, 4}, 5, {1, 2, 3}, {4, 5}},
    {"a surplus one again", 2, {1, 2, 3, 4}, 1, {2, 3}, {4, 1}},
    {"a list with repeats", 2, {1, 2, 1}, 3, {2}, {1, 3}},
    {"no limit", -1, {1, 2}, 3, {}, {}},
    {"zero is no limit", 0, {1, 2}, 3, {}, {}},
};

class LastNTable : public ::testing::TestWithParam<Row> {};

TEST_P(LastNTable, GivesUpTheOldest) {
  const Row& row = GetParam();
  SCOPED_TRACE(row.what);
  LastN kept(row.max_keep);
  kept.restore(row.before);
  EXPECT_EQ(kept.ids_after(row.id), row.after);

  Ids saved = row.victims;
  saved.insert(saved.end(), row.after.begin(), row.after.end());
  EXPECT_EQ(kept.saved_after(row.id), saved);

  EXPECT_EQ(kept.committed(row.id), row.victims);
  EXPECT_EQ(kept.ids(), row.after);
}

INSTANTIATE_TEST_SUITE_P(Table, LastNTable, ::testing::ValuesIn(kTable));

TEST(LastN, LookingAheadChangesNothing) {
  LastN kept(2);
  kept.restore({1, 2});
  kept.ids_after(3);
  kept.saved_after(3);
  EXPECT_THAT(kept.ids(), ElementsAre(1, 2));
  // The save of 3 failed; the next one gives up the same file.
  EXPECT_THAT(kept.committed(4), ElementsAre(1));
  EXPECT_THAT(kept.ids(), ElementsAre(2, 4));
}

TEST(LastN, RestoringALongerListShortensItButRetiresLater) {
  LastN kept(2);
  kept.restore({1, 2, 3});
  EXPECT_THAT(kept.ids(), ElementsAre(2, 3));
  EXPECT_THAT(kept.committed(4), ElementsAre(1, 2));
  EXPECT_THAT(kept.committed(5), ElementsAre(3));
}

TEST(LastN, CrashBetweenCommitAndRetireLeavesNoOrphan) {
  LastN kept(2);
  kept.restore({1, 2});
  const Ids in_file_3 = kept.saved_after(3);
  kept.committed(3);  // and the process dies before 1 is retired
  LastN resumed(2);
  resumed.restore(in_file_3);
  EXPECT_THAT(resumed.ids(), ElementsAre(2, 3));
  EXPECT_THAT(resumed.committed(4), ElementsAre(1, 2));
}

TEST(LastN, WithoutALimitNothingIsEverGivenUp) {
  LastN kept;
  for (std::int64_t id = 1; id < 100; ++id) EXPECT_THAT(kept.committed(id), IsEmpty());
}

}  // namespace
}  // namespace millrace
