#include "millrace/io/checkpoint_name.h"

#include <gtest/gtest.h>

namespace millrace::test {
namespace {

TEST(CheckpointName, SaysWhatAnObjectIs) {
  EXPECT_TRUE(is_checkpoint_name("epoch_3.pth"));
  EXPECT_TRUE(is_checkpoint_name("best_acc_epoch_3.pth"));
  EXPECT_TRUE(is_checkpoint_name("epoch_3-0a1b2c3d.pth"));
  EXPECT_FALSE(is_checkpoint_name("last_checkpoint"));
  EXPECT_FALSE(is_checkpoint_name("checkpoints.catalog"));
  EXPECT_FALSE(is_checkpoint_name("epoch_3.pth.bak"));
}

TEST(CheckpointName, PublishedNamesHaveEightHexDigits) {
  EXPECT_TRUE(is_published_name("epoch_3-0a1b2c3d.pth"));
  EXPECT_TRUE(is_published_name("a-00000000.pth"));
  for (const char* name : {"epoch_3.pth", "epoch_3-0a1b2c3.pth", "epoch_3-0A1B2C3D.pth", ".pth",
                           "-0a1b2c3d.pth", "epoch_30a1b2c3d.pth", "epoch_3-0a1b2c3d"}) {
    EXPECT_FALSE(is_published_name(name)) << name;
  }
}

TEST(CheckpointName, PublishedNameReplacesTheExtension) {
  const std::string digits = "0a1b2c3d4e5f";
  EXPECT_EQ(published_name("epoch_3.pth", digits), "epoch_3-0a1b2c3d.pth");
  EXPECT_EQ(published_name("v1.2.pt", digits), "v1.2-0a1b2c3d.pth");
  EXPECT_EQ(published_name("plain", digits), "plain-0a1b2c3d.pth");
  EXPECT_TRUE(is_published_name(published_name("epoch_3.pth", digits)));
}

}  // namespace
}  // namespace millrace::test
