#include "millrace/runtime/async/error.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace millrace {
namespace {

TEST(Error, ConfigErrorNamesKeyProblemAndNearest) {
  const ConfigError error("hooks.checkpoint.intervall", "is not an option", "interval");
  EXPECT_STREQ(error.what(),
               "hooks.checkpoint.intervall: is not an option (did you mean 'interval'?)");
  EXPECT_EQ(error.nearest(), "interval");
}

TEST(Error, ConfigErrorWithoutNearestSuggestsNothing) {
  EXPECT_STREQ(ConfigError("lr", "must be positive").what(), "lr: must be positive");
}

TEST(Error, StorageErrorNamesOperationPathAndErrno) {
  const StorageError error("fsync", "work/epoch_1.pth", ENOSPC, "after 4096 bytes");
  EXPECT_STREQ(error.what(), "fsync work/epoch_1.pth: No space left on device: after 4096 bytes");
  EXPECT_EQ(error.error_number(), ENOSPC);
}

TEST(Error, CheckpointErrorNamesPath) {
  EXPECT_STREQ(CheckpointError("a.pth", "has no 'state_dict'").what(),
               "checkpoint a.pth: has no 'state_dict'");
}

TEST(Error, NearestNameFindsTypoAndRefusesStrangers) {
  const std::vector<std::string> names{"HIGHEST", "HIGH", "NORMAL"};
  EXPECT_EQ(nearest_name("HIHG", names), "HIGH");
  EXPECT_EQ(nearest_name("NORMALL", names), "NORMAL");
  EXPECT_EQ(nearest_name("zzzzzzzz", names), "");
}

TEST(Error, ResultHoldsValueOrFault) {
  const Result<int> good = 3;
  EXPECT_TRUE(good.ok());
  EXPECT_EQ(good.value(), 3);
  const Result<int> bad = Fault{Fault::Kind::truncated, "byte 7", "ends early"};
  EXPECT_FALSE(bad);
  EXPECT_EQ(bad.fault().text(), "byte 7: ends early");
}

}  // namespace
}  // namespace millrace
