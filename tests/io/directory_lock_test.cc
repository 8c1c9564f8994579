#include "millrace/io/directory_lock.h"

#include <gtest/gtest.h>

#include <string>

#include "millrace/runtime/async/error.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

TEST(DirectoryLock, SecondHolderIsRefusedUntilTheFirstIsGone) {
  const test::TempDir dir;
  {
    const DirectoryLock first(dir.path());
    EXPECT_TRUE(first.held());
    try {
      const DirectoryLock second(dir.path());
      FAIL() << "two runs hold one directory";
    } catch (const StorageError& error) {
      EXPECT_EQ(error.path(), dir.path().string());
      EXPECT_NE(std::string(error.what()).find("another run"), std::string::npos) << error.what();
    }
  }
  EXPECT_TRUE(DirectoryLock(dir.path()).held());
}

TEST(DirectoryLock, MovesWithItsHolder) {
  const test::TempDir dir;
  DirectoryLock first(dir.path());
  const DirectoryLock moved(std::move(first));
  EXPECT_TRUE(moved.held());
  EXPECT_FALSE(first.held());
  EXPECT_THROW(DirectoryLock(dir.path()), StorageError);
}

TEST(DirectoryLock, MissingDirectoryIsNotItsError) {
  const test::TempDir dir;
  EXPECT_FALSE(DirectoryLock(dir.path() / "missing").held());
}

}  // namespace
}  // namespace millrace
