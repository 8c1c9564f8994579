#include "millrace/io/checkpoint_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <memory>

#include "millrace/io/local_storage.h"
#include "millrace/io/memory_storage.h"
#include "millrace/io/pth_reader.h"
#include "tests/support/checkpoint_file.h"
#include "tests/support/fault_file_ops.h"
#include "tests/support/images.h"
#include "tests/support/temp_dir.h"

namespace millrace::test {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

struct MemoryPair {
  MemoryStorage data, work_dir;
};

struct LocalPair {
  TempDir dir;
  LocalStorage data{dir.path() / "out"}, work_dir{dir.path() / "work"};
};

template <class Pair>
class CheckpointStoreTest : public ::testing::Test {
 protected:
  void SetUp() override { store_.prepare(); }

  void put(std::string_view name, const std::vector<std::byte>& bytes) {
    BytesImage image(bytes);
    store_.commit(name, image, CheckpointStore::CommitOptions());
  }
  void put(std::string_view name, std::uint64_t generation, std::int64_t iter) {
    put(name, checkpoint_file(identity_of(generation, iter)));
  }

  Pair pair_;
  CheckpointStore store_{pair_.data, pair_.work_dir};
};

using Pairs = ::testing::Types<MemoryPair, LocalPair>;
TYPED_TEST_SUITE(CheckpointStoreTest, Pairs);

TYPED_TEST(CheckpointStoreTest, EmptyDirectoryHasNothing) {
  const auto scan = this->store_.newest_valid();
  EXPECT_FALSE(scan.found());
  EXPECT_THAT(scan.skipped, IsEmpty());
  EXPECT_EQ(this->store_.highest_generation(), 0U);
}

TYPED_TEST(CheckpointStoreTest, CommitWritesTheFileAndThePointer) {
  const auto bytes = checkpoint_file(identity_of(1, 10));
  BytesImage image(bytes);
  const CommitTimes times =
      this->store_.commit("iter_10.pth", image, CheckpointStore::CommitOptions());
  EXPECT_LE(times.started, times.written);
  EXPECT_LE(times.synced, times.durable);
  EXPECT_EQ(read_all(this->pair_.data, "iter_10.pth"), bytes);
  EXPECT_EQ(read_text(this->pair_.work_dir, "last_checkpoint"),
            this->pair_.data.location() + "/iter_10.pth");
  this->put("iter_20.pth", 2, 20);
  EXPECT_EQ(read_text(this->pair_.work_dir, "last_checkpoint"),
            this->pair_.data.location() + "/iter_20.pth");
}

TYPED_TEST(CheckpointStoreTest, NewestIsTheHighestGenerationNotTheHighestStep) {
  this->put("iter_30.pth", 3, 30);
  this->put("iter_40.pth", 4, 40);
  this->put("iter_20.pth", 5, 20);  // resumed from 10, another branch
  this->put("iter_9.pth", 1, 9);
  const auto scan = this->store_.newest_valid();
  EXPECT_EQ(scan.name, "iter_20.pth");
  EXPECT_EQ(scan.identity.generation, 5U);
  EXPECT_EQ(scan.identity.iter, 20);
  EXPECT_EQ(scan.identity.save_id.size(), 32U);
  EXPECT_THAT(scan.skipped, IsEmpty());
}

TYPED_TEST(CheckpointStoreTest, BrokenFilesAreSkippedWithAReason) {
  this->put("iter_1.pth", 1, 1);
  this->put("iter_2.pth", 2, 2);
  auto flipped = checkpoint_file(identity_of(3, 3));
  flipped[2000] ^= std::byte{0x10};  // in the weight
  this->put("iter_3.pth", flipped);
  auto truncated = checkpoint_file(identity_of(4, 4));
  truncated.resize(truncated.size() - 100);
  this->put("iter_4.pth", truncated);
  this->put("iter_5.pth", pattern(5000, 1));
  this->put("iter_6.pth", std::vector<std::byte>());

  const auto scan = this->store_.newest_valid();
  EXPECT_EQ(scan.name, "iter_2.pth");
  std::vector<std::string> names;
  for (const auto& skipped : scan.skipped) {
    names.push_back(skipped.name);
    EXPECT_THAT(skipped.reason, StartsWith("The file "));
    EXPECT_GT(skipped.reason.size(), 25U) << skipped.reason;
  }
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("iter_3.pth", "iter_4.pth", "iter_5.pth",
                                                     "iter_6.pth"));
}

TYPED_TEST(CheckpointStoreTest, NothingValidListsEverything) {
  auto flipped = checkpoint_file(identity_of(1, 1));
  flipped[2000] ^= std::byte{1};
  this->put("a.pth", flipped);
  this->put("b.pth", pattern(100, 1));
  const auto scan = this->store_.newest_valid();
  EXPECT_FALSE(scan.found());
  EXPECT_EQ(scan.skipped.size(), 2U);
}

// Any single byte of the file: the one before is taken, or the flip is in bytes that mean nothing
// and the file still says what it said.
TYPED_TEST(CheckpointStoreTest, NoFlippedByteIsLoadedSilently) {
  const auto identity = identity_of(2, 2);
  const auto good = checkpoint_file(identity);
  this->put("iter_1.pth", 1, 1);
  std::size_t detected = 0;
  for (std::size_t at = 0; at<good.size(); at += at> 200 && at < 4000 ? 97 : 7) {
    auto bad = good;
    bad[at] ^= std::byte{0x04};
    commit_bytes(this->pair_.data, "iter_2.pth", bad);
    const auto scan = this->store_.newest_valid();
    if (scan.name == "iter_2.pth") {
      EXPECT_EQ(scan.identity.save_id, identity.save_id) << at;
      EXPECT_EQ(scan.identity.generation, 2U) << at;
      const auto reader = PthReader::open(this->pair_.data.open("iter_2.pth"));
      ASSERT_TRUE(reader.ok());
      std::vector<std::byte> weight(kWeightBytes);
      EXPECT_TRUE(reader.value().read_storage("0", weight).ok()) << at;
      EXPECT_EQ(weight, pattern(kWeightBytes, 1)) << at;
    } else {
      EXPECT_EQ(scan.name, "iter_1.pth") << at;
      EXPECT_EQ(scan.skipped.size(), 1U) << at;
      ++detected;
    }
  }
  EXPECT_GT(detected, 40U);
}

TYPED_TEST(CheckpointStoreTest, ForeignFilesComeAfterOursByTime) {
  this->put("epoch_9.pth", checkpoint_file(std::nullopt));
  this->put("epoch_2.pth", 1, 2);
  EXPECT_EQ(this->store_.newest_valid().name, "epoch_2.pth");
  this->store_.retire("epoch_2.pth");
  const auto scan = this->store_.newest_valid();
  EXPECT_EQ(scan.name, "epoch_9.pth");
  EXPECT_EQ(scan.identity.generation, 0U);
  EXPECT_THAT(scan.identity.save_id, IsEmpty());
}

TEST(CheckpointStoreTime, OfTwoForeignFilesTheLaterOneIsNewer) {
  MemoryStorage storage;
  CheckpointStore store(storage, storage);
  for (const char* name : {"epoch_1.pth", "epoch_3.pth", "epoch_2.pth"}) {
    commit_bytes(storage, name, checkpoint_file(std::nullopt));
  }
  EXPECT_EQ(store.newest_valid().name, "epoch_2.pth");
}

TYPED_TEST(CheckpointStoreTest, BestPublishedAndOtherFilesAreNoCandidates) {
  this->put("iter_1.pth", 1, 1);
  this->put("best_acc_iter_2.pth", 7, 2);
  this->put("iter_3-0a1b2c3d.pth", 8, 3);
  this->put("iter_4.pth.old", 9, 4);
  commit_text(this->pair_.data, "log.txt", "not a checkpoint");
  const auto scan = this->store_.newest_valid();
  EXPECT_EQ(scan.name, "iter_1.pth");
  EXPECT_THAT(scan.skipped, IsEmpty());
  EXPECT_EQ(this->store_.highest_generation(), 8U);

  this->put("iter_5-0a1b2c3.pth", 10, 5);  // seven digits: a name of the user's
  EXPECT_EQ(this->store_.newest_valid().name, "iter_5-0a1b2c3.pth");
}

TYPED_TEST(CheckpointStoreTest, BrokenFilesStillCountForTheNextGeneration) {
  auto flipped = checkpoint_file(identity_of(6, 6));
  flipped[2000] ^= std::byte{1};
  this->put("iter_6.pth", flipped);
  this->put("iter_5.pth", 5, 5);
  this->put("iter_7.pth", pattern(1000, 1));
  EXPECT_EQ(this->store_.newest_valid().name, "iter_5.pth");
  EXPECT_EQ(this->store_.highest_generation(), 6U);
}

TYPED_TEST(CheckpointStoreTest, PointerToAMissingFileDoesNotMatter) {
  this->put("iter_1.pth", 1, 1);
  this->put("iter_2.pth", 2, 2);
  this->store_.retire("iter_2.pth");
  EXPECT_THAT(read_text(this->pair_.work_dir, "last_checkpoint"), EndsWith("/iter_2.pth"));
  EXPECT_EQ(this->store_.newest_valid().name, "iter_1.pth");
  this->pair_.work_dir.retire("last_checkpoint");
  EXPECT_EQ(this->store_.newest_valid().name, "iter_1.pth");
}

TYPED_TEST(CheckpointStoreTest, IdentityOfAFile) {
  auto identity = identity_of(3, 30);
  identity.parent_id = new_save_id();
  identity.epoch = 2;
  this->put("a.pth", checkpoint_file(identity));
  this->put("foreign.pth", checkpoint_file(std::nullopt));
  this->put("broken.pth", pattern(50, 1));
  const auto read = this->store_.identity("a.pth");
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read.value().save_id, identity.save_id);
  EXPECT_EQ(read.value().parent_id, identity.parent_id);
  EXPECT_EQ(read.value().generation, 3U);
  EXPECT_EQ(read.value().epoch, 2);
  EXPECT_EQ(read.value().reason, "interval");
  const auto foreign = this->store_.identity("foreign.pth");
  ASSERT_TRUE(foreign.ok());
  EXPECT_EQ(foreign.value().generation, 0U);
  EXPECT_FALSE(this->store_.identity("broken.pth").ok());
  EXPECT_THROW((void)this->store_.identity("absent.pth"), StorageError);
}

TYPED_TEST(CheckpointStoreTest, DiscardedSaveMovesNothing) {
  this->put("iter_1.pth", 1, 1);
  HookedImage image(checkpoint_file(identity_of(2, 2)),
                    [](std::uint64_t) { throw CheckpointError("iter_2.pth", "discarded"); });
  EXPECT_THROW(this->store_.commit("iter_2.pth", image, CheckpointStore::CommitOptions()),
               CheckpointError);
  EXPECT_THAT(read_text(this->pair_.work_dir, "last_checkpoint"), EndsWith("/iter_1.pth"));
  EXPECT_THAT(names_of(this->pair_.data), ElementsAre("iter_1.pth"));
}

// Over file operations that can fail; data and pointer in one directory.
struct FaultRig {
  TempDir dir;
  std::shared_ptr<FaultFileOps> ops = std::make_shared<FaultFileOps>();
  LocalStorage storage{dir.path(), ops};
  CheckpointStore store{storage, storage};

  void put(std::string_view name, std::uint64_t generation) {
    const auto bytes = checkpoint_file(identity_of(generation, 1));
    BytesImage image(bytes);
    store.commit(name, image, CheckpointStore::CommitOptions());
  }
};

TEST(CheckpointStoreFault, PointerComesAfterTheDurableFile) {
  FaultRig rig;
  rig.put("a.pth", 1);
  const auto texts = rig.ops->texts();
  const auto index = [&](const std::string& text, std::size_t from) {
    const auto found =
        std::find(texts.begin() + static_cast<std::ptrdiff_t>(from), texts.end(), text);
    EXPECT_NE(found, texts.end()) << text;
    return static_cast<std::size_t>(found - texts.begin());
  };
  const std::string synced = "fsync_dir " + rig.dir.path().filename().string();
  const std::size_t renamed = index("rename .a.pth.*.tmp a.pth", 0);
  const std::size_t durable = index(synced, renamed);
  const std::size_t pointer = index("create .last_checkpoint.*.tmp", durable);
  index(synced, index("rename .last_checkpoint.*.tmp last_checkpoint", pointer));
}

TEST(CheckpointStoreFault, FailedPointerKeepsTheFile) {
  FaultRig rig;
  rig.put("a.pth", 1);
  rig.put("b.pth", 2);
  // The last rename of a commit is the pointer's.
  rig.ops->forget_calls();
  rig.put("b.pth", 2);
  const auto calls = rig.ops->calls();
  const auto rename = std::find_if(calls.rbegin(), calls.rend(),
                                   [](const FileCall& call) { return call.op == FileOp::kRename; });
  rig.ops->fail_at(static_cast<std::size_t>(calls.rend() - rename), EIO);
  try {
    rig.put("b.pth", 3);
    FAIL() << "an unwritten pointer counted as done";
  } catch (const StorageError& error) {
    EXPECT_THAT(error.path(), HasSubstr("last_checkpoint"));
  }
  EXPECT_EQ(rig.store.newest_valid().identity.generation, 3U);
  EXPECT_THAT(read_text(rig.storage, "last_checkpoint"), EndsWith("/b.pth"));
}

TEST(CheckpointStoreFault, UnreadableFileIsSkipped) {
  FaultRig rig;
  rig.put("a.pth", 1);
  rig.put("b.pth", 2);
  rig.ops->fail_next(FileOp::kOpenRead, EACCES);
  const auto scan = rig.store.newest_valid();
  EXPECT_EQ(scan.name, "b.pth");
  ASSERT_EQ(scan.skipped.size(), 1U);
  EXPECT_EQ(scan.skipped[0].name, "a.pth");
  EXPECT_THAT(scan.skipped[0].reason, HasSubstr("Permission denied"));
  rig.ops->fail_next(FileOp::kPread, EIO, FaultFileOps::kForever);
  EXPECT_FALSE(rig.store.newest_valid().found());
}

// Else the next save would not be newer than a file that can be read again later.
TEST(CheckpointStoreFault, GenerationThatCannotBeReadIsKnownToTheCatalog) {
  FaultRig rig;
  rig.put("a.pth", 1);
  rig.put("b.pth", 4);
  rig.store.prepare();
  rig.ops->fail_next(FileOp::kPread, EIO, FaultFileOps::kForever);
  EXPECT_EQ(rig.store.highest_generation(), 4U);
}

TEST(CheckpointStoreFault, RetireThatFailsKeepsTheRow) {
  FaultRig rig;
  rig.put("a.pth", 1);
  rig.ops->fail_next(FileOp::kRename, EIO);
  EXPECT_THROW(rig.store.retire("a.pth"), StorageError);
  EXPECT_EQ(rig.store.rows().size(), 1U);
  const std::uint64_t size = rig.storage.open("a.pth")->size();
  EXPECT_EQ(rig.store.retire("a.pth"), size);
  EXPECT_THAT(rig.store.rows(), IsEmpty());
  EXPECT_EQ(rig.store.retire("absent.pth"), 0U);
}

TEST(CheckpointStoreFault, CrashedSaveIsSweptAndNeverConsidered) {
  FaultRig rig;
  rig.put("a.pth", 1);
  rig.ops->fail_next(FileOp::kFdatasync, EIO);
  rig.ops->fail_next(FileOp::kUnlink, EIO);
  EXPECT_THROW(rig.put("b.pth", 2), StorageError);
  EXPECT_EQ(rig.store.newest_valid().name, "a.pth");
  const auto swept = rig.store.prepare().swept;
  ASSERT_EQ(swept.size(), 1U);
  EXPECT_THAT(swept[0], StartsWith(".b.pth."));
}

}  // namespace
}  // namespace millrace::test
