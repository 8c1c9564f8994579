#include "millrace/io/checkpoint_identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/io/checkpoint_store.h"
#include "millrace/io/memory_storage.h"
#include "tests/io/support/memory_object.h"
#include "tests/support/checkpoint_file.h"

namespace millrace::test {
namespace {

using ::testing::HasSubstr;

TEST(CheckpointIdentity, IsWhatTheRecordSays) {
  const auto identity = identity_of(5, 100);
  const auto read = read_identity(in_memory(checkpoint_file(identity)));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read.value(), identity);
}

TEST(CheckpointIdentity, AnotherProgramsFileHasNone) {
  const auto read = read_identity(in_memory(checkpoint_file(std::nullopt)));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read.value(), CheckpointIdentity{});
  std::vector<std::byte> legacy(600, std::byte{0});
  legacy[0] = std::byte{0x80};
  legacy[1] = std::byte{2};
  EXPECT_EQ(read_identity(in_memory(legacy)).value(), CheckpointIdentity{});
}

TEST(CheckpointIdentity, WhatIsNoCheckpointIsAFault) {
  EXPECT_FALSE(read_identity(in_memory({})).ok());
  const auto text = read_identity(in_memory(bytes_of_text("hello, this is a text\n")));
  ASSERT_FALSE(text.ok());
  EXPECT_THAT(text.fault().text(), HasSubstr("a text file, not a checkpoint"));
}

// Whatever byte is altered, a file of ours is never taken for another save.
TEST(CheckpointIdentity, DamagedFilesAreNeverSomebodyElse) {
  const auto identity = identity_of(5, 100);
  const auto file = checkpoint_file(identity);
  for (std::size_t i = 0; i < file.size(); ++i) {
    auto damaged = file;
    damaged[i] ^= std::byte{0x20};
    const auto read = read_identity(in_memory(damaged));
    EXPECT_TRUE(!read.ok() || read.value() == identity) << "byte " << i;
  }
  for (std::size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(read_identity(in_memory({file.begin(), file.begin() + size})).ok()) << size;
  }
}

TEST(CheckpointIdentity, AgreesWithTheStore) {
  MemoryStorage storage;
  commit_bytes(storage, "a.pth", checkpoint_file(identity_of(5, 100)));
  CheckpointStore store(storage, storage);
  EXPECT_EQ(read_identity(storage.open("a.pth")).value(), store.identity("a.pth").value());
}

}  // namespace
}  // namespace millrace::test
