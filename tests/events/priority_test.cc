#include "millrace/events/priority.h"

#include <gtest/gtest.h>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

TEST(Priority, LevelsHaveTheReferencesNumbers) {
  EXPECT_EQ(Priority::kHighest.value(), 0);
  EXPECT_EQ(Priority::kVeryHigh.value(), 10);
  EXPECT_EQ(Priority::kHigh.value(), 30);
  EXPECT_EQ(Priority::kAboveNormal.value(), 40);
  EXPECT_EQ(Priority::kNormal.value(), 50);
  EXPECT_EQ(Priority::kBelowNormal.value(), 60);
  EXPECT_EQ(Priority::kLow.value(), 70);
  EXPECT_EQ(Priority::kVeryLow.value(), 90);
  EXPECT_EQ(Priority::kLowest.value(), 100);
}

TEST(Priority, ParsesNamesInAnyCaseAndNumbers) {
  EXPECT_EQ(Priority::parse("VERY_HIGH"), Priority::kVeryHigh);
  EXPECT_EQ(Priority::parse("below_normal"), Priority::kBelowNormal);
  EXPECT_EQ(Priority::parse("Lowest"), Priority::kLowest);
  EXPECT_EQ(Priority::parse("49").value(), 49);
  EXPECT_EQ(Priority::parse("0"), Priority::kHighest);
}

TEST(Priority, NameIsTheLevelOrTheNumber) {
  EXPECT_EQ(Priority(70).name(), "LOW");
  EXPECT_EQ(Priority(71).name(), "71");
  for (int i = 0; i <= 100; ++i) EXPECT_EQ(Priority::parse(Priority(i).name()).value(), i);
}

TEST(Priority, SmallerRunsFirst) {
  EXPECT_LT(Priority::kHigh, Priority::kNormal);
  EXPECT_LT(Priority(49), Priority::kNormal);
}

TEST(Priority, RefusesNumbersOutsideTheRange) {
  for (int value : {-1, 101, 1000, 306}) {  // 306 is 50 in a byte
    EXPECT_THROW((void)Priority(value), ConfigError) << value;
  }
  try {
    (void)Priority::parse("101");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("priority: must be between 0 and 100"),
              std::string::npos)
        << error.what();
  }
}

TEST(Priority, RefusesUnknownNamesAndNamesTheNearest) {
  try {
    (void)Priority::parse("very_hihg");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.nearest(), "VERY_HIGH");
  }
  for (const char* text : {"", "5x", "4.5", "99999999999", " 5"}) {
    EXPECT_THROW((void)Priority::parse(text), ConfigError) << text;
  }
}

}  // namespace
}  // namespace millrace
