#include "millrace/io/object_image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "millrace/io/local_storage.h"
#include "millrace/io/memory_storage.h"
#include "millrace/runtime/async/error.h"
#include "tests/io/support/allocation_meter.h"
#include "tests/support/images.h"
#include "tests/support/object_storage.h"
#include "tests/support/temp_dir.h"

namespace millrace::test {
namespace {

TEST(CopyObject, CopiesWithinAndBetweenStorages) {
  TempDir dir;
  LocalStorage local(dir.path());
  ObjectStorage objects;
  const auto bytes = pattern((20 << 20) + 123, 1);
  commit_bytes(local, "a", bytes);
  const CommitTimes times = copy_object(local, "a", objects, "b");
  EXPECT_LE(times.started, times.durable);
  copy_object(objects, "b", objects, "c");
  copy_object(objects, "c", local, "a");
  copy_object(local, "a", local, "d");
  EXPECT_TRUE(read_all(objects, "c") == bytes);
  EXPECT_TRUE(read_all(local, "d") == bytes);
  EXPECT_THAT(names_of(local), ::testing::ElementsAre("a", "d"));
}

TEST(CopyObject, OntoItselfKeepsTheBytes) {
  MemoryStorage storage;
  commit_text(storage, "a", "one");
  copy_object(storage, "a", storage, "a");
  EXPECT_EQ(read_text(storage, "a"), "one");
}

TEST(CopyObject, MissingObjectChangesNothing) {
  MemoryStorage storage;
  commit_text(storage, "b", "old");
  try {
    copy_object(storage, "a", storage, "b");
    FAIL() << "copied a missing object";
  } catch (const StorageError& error) {
    EXPECT_EQ(error.error_number(), ENOENT);
  }
  EXPECT_EQ(read_text(storage, "b"), "old");
}

TEST(CopyObject, MemoryDoesNotGrowWithTheObject) {
  TempDir dir;
  LocalStorage storage(dir.path());
  std::size_t peaks[2] = {};
  for (int i = 0; i < 2; ++i) {
    commit_bytes(storage, "a", pattern(std::size_t{16} << (20 + 2 * i), 2));
    const AllocationMeter meter;
    copy_object(storage, "a", storage, "b");
    peaks[i] = meter.peak();
  }
  EXPECT_LT(peaks[0], std::size_t{9} << 20) << "more than a block";
  EXPECT_LT(peaks[1], peaks[0] + (64 << 10));
}

}  // namespace
}  // namespace millrace::test
