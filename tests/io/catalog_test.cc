#include "millrace/io/catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "millrace/io/crc32.h"
#include "millrace/io/local_storage.h"
#include "millrace/io/memory_storage.h"
#include "tests/io/support/allocation_meter.h"
#include "tests/support/checkpoint_file.h"
#include "tests/support/fault_file_ops.h"
#include "tests/support/object_storage.h"
#include "tests/support/temp_dir.h"

namespace millrace::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::string_view kLog = Catalog::kName;

CatalogRow save(Storage& storage, const std::string& name, std::uint64_t generation) {
  CatalogRow row;
  row.name = name;
  row.identity = identity_of(generation, static_cast<std::int64_t>(generation) * 10);
  const auto file = checkpoint_file(row.identity);
  commit_bytes(storage, name, file);
  row.size = file.size();
  row.digest = "d" + std::to_string(generation);
  row.saved_at_ns = 1'000 + static_cast<std::int64_t>(generation);
  row.scores_known = true;
  return row;
}

std::vector<std::string> names(const Catalog& catalog) {
  std::vector<std::string> all;
  for (const CatalogRow& row : catalog.rows()) all.push_back(row.name);
  return all;
}

void expect_unknown(const CatalogRow& row) {
  EXPECT_THAT(row.scores, IsEmpty()) << row.name;
  EXPECT_FALSE(row.scores_known) << row.name;
  EXPECT_FALSE(row.pinned.has_value()) << row.name;
}

// A storage with four files, and a log that has one of each change.
struct History {
  History() {
    Catalog catalog(storage);
    EXPECT_THAT(catalog.open(), IsEmpty());
    const auto done = [&] {
      states.push_back(catalog.rows());
      sizes.push_back(storage.open(kLog)->size());
    };
    states.emplace_back();
    sizes.push_back(16);  // of the header
    const CatalogRow first = save(storage, "epoch_1.pth", 1);
    catalog.add(first), done();
    catalog.add(save(storage, "epoch_2.pth", 2)), done();
    catalog.score(first.identity.save_id, "acc", 0.25), done();
    storage.link("epoch_1.pth", "best_acc_epoch_1.pth");
    CatalogRow best = *catalog.find("epoch_1.pth");
    best.name = "best_acc_epoch_1.pth";
    catalog.add(best), done();
    catalog.pin("epoch_2.pth", true), done();
    catalog.add(save(storage, "epoch_3.pth", 3)), done();
    storage.retire("epoch_3.pth");
    catalog.retire("epoch_3.pth"), done();
    log = read_all(storage, kLog);
  }

  MemoryStorage storage;
  std::vector<std::byte> log;
  std::vector<std::vector<CatalogRow>> states;  // after each change
  std::vector<std::uint64_t> sizes;             // of the log then
};

TEST(Catalog, ReadsBackWhatWasWritten) {
  History history;
  Catalog catalog(history.storage);
  EXPECT_THAT(catalog.open(), IsEmpty());
  EXPECT_EQ(catalog.rows(), history.states.back());
  EXPECT_THAT(names(catalog), ElementsAre("epoch_1.pth", "epoch_2.pth", "best_acc_epoch_1.pth"));
  EXPECT_EQ(catalog.find("epoch_1.pth")->scores.at("acc"), 0.25);
  EXPECT_EQ(catalog.find("best_acc_epoch_1.pth")->scores.at("acc"), 0.25);
  EXPECT_EQ(catalog.find("epoch_2.pth")->pinned, true);
  EXPECT_EQ(catalog.find("epoch_3.pth"), nullptr);
  const std::string& id = catalog.rows()[1].identity.save_id;
  EXPECT_EQ(catalog.find_save(id), catalog.find("epoch_2.pth"));
  EXPECT_EQ(catalog.find_save("no such save"), nullptr);
  EXPECT_EQ(catalog.find_save(""), nullptr);
  EXPECT_EQ(read_all(history.storage, kLog), history.log) << "opening alone changed the log";
}

TEST(Catalog, AppendsOneRecordForAChange) {
  History history;
  for (std::size_t i = 2; i < history.sizes.size(); ++i) {
    EXPECT_LT(history.sizes[i] - history.sizes[i - 1], 250U) << i;
    EXPECT_GT(history.sizes[i], history.sizes[i - 1]) << i;
  }
}

TEST(Catalog, ChangesOfWhatIsNotThereWriteNothing) {
  History history;
  Catalog catalog(history.storage);
  catalog.open();
  EXPECT_FALSE(catalog.score("no such save", "acc", 1));
  EXPECT_FALSE(catalog.score("", "acc", 1));
  EXPECT_FALSE(catalog.pin("epoch_9.pth", true));
  EXPECT_FALSE(catalog.retire("epoch_9.pth"));
  EXPECT_EQ(read_all(history.storage, kLog), history.log);
}

TEST(Catalog, EmptyStorageSaysAndWritesNothing) {
  MemoryStorage storage;
  commit_text(storage, "last_checkpoint", "x");
  commit_text(storage, "run.json", "{}");
  Catalog catalog(storage);
  EXPECT_THAT(catalog.open(), IsEmpty());
  EXPECT_THAT(names_of(storage), ElementsAre("last_checkpoint", "run.json"));
}

TEST(Catalog, MissingLogIsRebuiltNewestGenerationLast) {
  History history;
  save(history.storage, "iter_9.pth", 9);
  save(history.storage, "a.pth", 5);
  history.storage.retire(kLog);
  Catalog catalog(history.storage);
  EXPECT_THAT(catalog.open(), ElementsAre(HasSubstr("5 checkpoints")));
  // A link is as old as its twin.
  EXPECT_THAT(names(catalog), ElementsAre("best_acc_epoch_1.pth", "epoch_1.pth", "epoch_2.pth",
                                          "a.pth", "iter_9.pth"));
  for (const CatalogRow& row : catalog.rows()) {
    expect_unknown(row);
    EXPECT_GT(row.saved_at_ns, 1'000'000'000) << "not the time of the file";
  }
  EXPECT_EQ(catalog.find("epoch_2.pth")->identity, history.states.back()[1].identity);
  EXPECT_EQ(catalog.find("epoch_2.pth")->size, history.states.back()[1].size);
  Catalog again(history.storage);
  EXPECT_THAT(again.open(), IsEmpty()) << "the rebuilt log was not written";
  EXPECT_EQ(again.rows(), catalog.rows());
}

TEST(Catalog, PublishedAndForeignNamesGetNoRow) {
  MemoryStorage storage;
  const CatalogRow row = save(storage, "epoch_1.pth", 1);
  storage.link("epoch_1.pth", "epoch_1-0a1b2c3d.pth");
  storage.link("epoch_1.pth", "epoch_1.pth.bak");
  Catalog catalog(storage);
  catalog.open();
  EXPECT_THAT(names(catalog), ElementsAre("epoch_1.pth"));
}

TEST(Catalog, AlteredByteNeverMakesAWrongRow) {
  const History history;
  const auto& truth = history.states.back();
  for (std::size_t i = 0; i < history.log.size(); ++i) {
    for (const unsigned flip : {0x01U, 0x80U, 0xFFU}) {
      SCOPED_TRACE("byte " + std::to_string(i));
      auto log = history.log;
      log[i] ^= static_cast<std::byte>(flip);
      MemoryStorage storage;
      for (const CatalogRow& row : truth) {
        commit_bytes(storage, row.name, checkpoint_file(row.identity));
      }
      commit_bytes(storage, kLog, log);
      Catalog catalog(storage);
      EXPECT_THAT(catalog.open(), ::testing::Contains(HasSubstr("corrupt")));
      ASSERT_EQ(catalog.rows().size(), truth.size());
      for (const CatalogRow& row : truth) {
        ASSERT_NE(catalog.find(row.name), nullptr);
        EXPECT_EQ(catalog.find(row.name)->identity, row.identity);
        expect_unknown(*catalog.find(row.name));
      }
      Catalog again(storage);
      EXPECT_THAT(again.open(), IsEmpty());
      EXPECT_EQ(again.rows(), catalog.rows());
    }
  }
}

TEST(Catalog, CutLogKeepsTheWholeRecordsBeforeTheCut) {
  const History history;
  for (std::size_t size = 16; size < history.log.size(); ++size) {
    SCOPED_TRACE("size " + std::to_string(size));
    std::size_t changes = 0;
    while (history.sizes[changes + 1] <= size) ++changes;
    MemoryStorage storage;
    for (const CatalogRow& row : history.states[changes]) {
      commit_bytes(storage, row.name, checkpoint_file(row.identity));
    }
    commit_bytes(storage, kLog, {history.log.begin(), history.log.begin() + size});
    Catalog catalog(storage);
    const auto notes = catalog.open();
    EXPECT_EQ(catalog.rows(), history.states[changes]);
    if (size == history.sizes[changes]) {
      EXPECT_THAT(notes, IsEmpty());
    } else {
      EXPECT_THAT(notes, ElementsAre(HasSubstr("cut")));
    }
    // What is appended next must not follow half a record.
    catalog.add(save(storage, "epoch_8.pth", 8));
    Catalog again(storage);
    EXPECT_THAT(again.open(), IsEmpty());
    EXPECT_EQ(again.rows(), catalog.rows());
  }
}

TEST(Catalog, NewerVersionIsLeftAlone) {
  History history;
  auto log = history.log;
  log[8] = std::byte{2};
  const std::uint32_t crc = crc32(std::span(log).first(12));
  for (int i = 0; i < 4; ++i) log[12 + i] = static_cast<std::byte>(crc >> (8 * i));
  commit_bytes(history.storage, kLog, log);
  Catalog catalog(history.storage);
  EXPECT_THAT(catalog.open(),
              ::testing::Contains(AllOf(HasSubstr("version 2"), HasSubstr("not written to"))));
  ASSERT_EQ(catalog.rows().size(), 3U);
  for (const CatalogRow& row : catalog.rows()) expect_unknown(row);
  catalog.add(save(history.storage, "epoch_8.pth", 8));
  EXPECT_TRUE(catalog.pin("epoch_1.pth", true));
  EXPECT_TRUE(catalog.score(catalog.find("epoch_8.pth")->identity.save_id, "acc", 1));
  EXPECT_TRUE(catalog.retire("epoch_2.pth"));
  EXPECT_EQ(catalog.find("epoch_1.pth")->pinned, true);
  EXPECT_EQ(catalog.rows().size(), 3U);
  EXPECT_EQ(read_all(history.storage, kLog), log);
}

TEST(Catalog, RowOfAnotherFileIsVoid) {
  History history;
  const CatalogRow other = save(history.storage, "epoch_2.pth", 7);  // another run's
  Catalog catalog(history.storage);
  EXPECT_THAT(catalog.open(), ElementsAre(AllOf(HasSubstr("void"), HasSubstr("epoch_2.pth")),
                                          HasSubstr("had no row")));
  EXPECT_EQ(catalog.find("epoch_2.pth")->identity, other.identity);
  expect_unknown(*catalog.find("epoch_2.pth"));
  EXPECT_EQ(*catalog.find("epoch_1.pth"), history.states.back()[0]) << "another row suffered";
  EXPECT_THAT(Catalog(history.storage).open(), IsEmpty());
}

TEST(Catalog, RowOfAMissingFileIsDropped) {
  History history;
  history.storage.retire("epoch_2.pth");
  Catalog catalog(history.storage);
  EXPECT_THAT(catalog.open(), ElementsAre(AllOf(HasSubstr("gone"), HasSubstr("epoch_2.pth"))));
  EXPECT_THAT(names(catalog), ElementsAre("epoch_1.pth", "best_acc_epoch_1.pth"));
  EXPECT_THAT(Catalog(history.storage).open(), IsEmpty());
}

TEST(Catalog, BrokenFileGetsNoRow) {
  History history;
  auto file = read_all(history.storage, "epoch_2.pth");
  file.resize(file.size() / 2);
  commit_bytes(history.storage, "epoch_2.pth", file);
  Catalog catalog(history.storage);
  EXPECT_THAT(catalog.open(), ElementsAre(HasSubstr("epoch_2.pth has no row"), HasSubstr("gone")));
  EXPECT_EQ(catalog.find("epoch_2.pth"), nullptr);
}

void append(Storage& storage, const CatalogChange& change) {
  storage.append(kLog, catalog_record(change));
}

TEST(Catalog, ScoresThatNoRowCanHoldAreCorrupt) {
  History history;
  const std::string id = history.states.back()[0].identity.save_id;
  for (const char letter : {'a', 'b'}) {
    append(history.storage, CatalogScore{id, std::string(700 << 10, letter), 1});
  }
  CatalogRow gone;
  gone.name = "gone.pth";
  append(history.storage, gone);
  Catalog catalog(history.storage);
  EXPECT_THAT(catalog.open(), ElementsAre(AllOf(HasSubstr("corrupt"), HasSubstr("more scores"))));
  ASSERT_EQ(catalog.rows().size(), 3U);
  for (const CatalogRow& row : catalog.rows()) expect_unknown(row);
  EXPECT_THAT(Catalog(history.storage).open(), IsEmpty());
}

// Its row is as long as a record can be, and it has more to say about itself than its row did.
TEST(Catalog, ARowThatOutgrowsItsRecordIsUnknownTheNextTime) {
  MemoryStorage storage;
  CatalogRow row = save(storage, "epoch_1.pth", 1);
  row.scores["m"] = 1;
  commit_bytes(storage, kLog, catalog_header());
  row.digest.append((1 << 20) + 12 - catalog_record(row).size(), 'd');
  row.scores_known = true;
  append(storage, row);
  row.identity.reason = "of more words than the row has";
  commit_bytes(storage, "epoch_1.pth", checkpoint_file(row.identity));
  const CatalogRow other = save(storage, "epoch_2.pth", 2);
  Catalog catalog(storage);
  EXPECT_THAT(catalog.open(), ElementsAre(HasSubstr("epoch_2.pth) had no row")));
  EXPECT_THAT(names(catalog), ElementsAre("epoch_1.pth", "epoch_2.pth"));
  EXPECT_EQ(catalog.find("epoch_1.pth")->scores.at("m"), 1);
  Catalog again(storage);
  EXPECT_THAT(again.open(), ElementsAre(HasSubstr("epoch_1.pth) had no row")));
  expect_unknown(*again.find("epoch_1.pth"));
  EXPECT_EQ(*again.find("epoch_2.pth"), *catalog.find("epoch_2.pth"));
  EXPECT_THAT(Catalog(storage).open(), IsEmpty());
}

TEST(Catalog, AnotherProgramsFileIsKnownByNameAndSize) {
  MemoryStorage storage;
  commit_bytes(storage, "vgg16.pth", checkpoint_file(std::nullopt));
  Catalog catalog(storage);
  EXPECT_THAT(catalog.open(), ElementsAre(HasSubstr("vgg16.pth")));
  ASSERT_EQ(catalog.rows().size(), 1U);
  EXPECT_EQ(catalog.rows()[0].identity.save_id, "");
  EXPECT_EQ(catalog.rows()[0].identity.generation, 0U);
  EXPECT_TRUE(catalog.pin("vgg16.pth", true));
  Catalog again(storage);
  EXPECT_THAT(again.open(), IsEmpty());
  EXPECT_EQ(again.rows()[0].pinned, true);
  commit_bytes(storage, "vgg16.pth", checkpoint_file(identity_of(1, 1)));
  Catalog replaced(storage);
  replaced.open();
  expect_unknown(replaced.rows()[0]);
}

TEST(Catalog, ARowIsReplacedByName) {
  History history;
  Catalog catalog(history.storage);
  catalog.open();
  const CatalogRow again = save(history.storage, "epoch_1.pth", 9);
  catalog.add(again);
  EXPECT_THAT(names(catalog), ElementsAre("epoch_2.pth", "best_acc_epoch_1.pth", "epoch_1.pth"));
  Catalog reopened(history.storage);
  EXPECT_THAT(reopened.open(), IsEmpty());
  EXPECT_EQ(*reopened.find("epoch_1.pth"), again);
}

TEST(Catalog, StorageThatCannotAppendGetsTheWholeLog) {
  ObjectStorage storage;
  Catalog catalog(storage);
  catalog.open();
  const CatalogRow row = save(storage, "epoch_1.pth", 1);
  storage.forget_requests();
  catalog.add(row);
  catalog.pin("epoch_1.pth", true);
  catalog.score(row.identity.save_id, "acc", 0.5);
  EXPECT_EQ(storage.requests().size(), 3U) << "other than one put for a change";
  Catalog again(storage);
  EXPECT_THAT(again.open(), IsEmpty());
  EXPECT_EQ(again.rows(), catalog.rows());
  EXPECT_EQ(again.rows()[0].scores.at("acc"), 0.5);
}

TEST(Catalog, DeadRecordsAreCompacted) {
  MemoryStorage storage;
  Catalog catalog(storage);
  catalog.open();
  catalog.add(save(storage, "epoch_1.pth", 1));
  std::uint64_t largest = 0;
  for (int i = 0; i < 3'000; ++i) {
    catalog.pin("epoch_1.pth", i % 2 == 0);
    largest = std::max(largest, storage.open(kLog)->size());
  }
  EXPECT_GT(largest, 64U << 10);
  EXPECT_LT(largest, (64U << 10) + 300);
  Catalog again(storage);
  EXPECT_THAT(again.open(), IsEmpty());
  EXPECT_EQ(again.rows(), catalog.rows());
}

TEST(Catalog, OpenCompactsALogOfDeadRecords) {
  MemoryStorage storage;
  const CatalogRow row = save(storage, "epoch_1.pth", 1);
  std::vector<std::byte> log = catalog_header();
  for (int i = 0; i < 500; ++i) {
    const auto record = catalog_record(row);
    log.insert(log.end(), record.begin(), record.end());
  }
  ASSERT_GT(log.size(), 64U << 10);
  commit_bytes(storage, kLog, log);
  Catalog catalog(storage);
  EXPECT_THAT(catalog.open(), IsEmpty());
  EXPECT_LT(storage.open(kLog)->size(), 300U);
  EXPECT_THAT(catalog.rows(), ElementsAre(row));
}

// Every call of a change fails, once and for good (a crash): the log has the change or not, and a
// change that failed is written with the next.
TEST(Catalog, EveryCallOfAChangeFailing) {
  for (const bool forever : {false, true}) {
    for (std::size_t n = 1;; ++n) {
      SCOPED_TRACE("call " + std::to_string(n));
      TempDir dir;
      const auto ops = std::make_shared<FaultFileOps>();
      LocalStorage storage(dir.path(), ops);
      storage.prepare();
      Catalog catalog(storage);
      catalog.open();
      catalog.add(save(storage, "epoch_1.pth", 1));
      catalog.pin("epoch_1.pth", false);
      const auto before = catalog.rows();
      ops->limit_writes(20);
      ops->fail_at(n, EIO, forever);
      bool threw = false;
      try {
        catalog.pin("epoch_1.pth", true);
      } catch (const StorageError&) {
        threw = true;
      }
      ops->clear_faults();
      EXPECT_EQ(catalog.find("epoch_1.pth")->pinned, true) << "a change was lost";
      {
        LocalStorage next(dir.path());
        Catalog after_crash(next);
        after_crash.open();
        EXPECT_TRUE(after_crash.rows() == before || after_crash.rows() == catalog.rows());
        EXPECT_TRUE(threw || after_crash.rows() == catalog.rows());
      }
      catalog.score(before[0].identity.save_id, "acc", 1);
      Catalog again(storage);
      EXPECT_THAT(again.open(), IsEmpty());
      EXPECT_EQ(again.rows(), catalog.rows());
      if (!threw) {
        EXPECT_GT(n, 4U);
        break;
      }
    }
  }
}

TEST(Catalog, LogThatCannotBeWrittenAtOpenIsSaidAndWrittenLater) {
  TempDir dir;
  const auto ops = std::make_shared<FaultFileOps>();
  LocalStorage storage(dir.path(), ops);
  storage.prepare();
  save(storage, "epoch_1.pth", 1);
  ops->fail_next(FileOp::kCreate, EROFS);
  Catalog catalog(storage);
  EXPECT_THAT(catalog.open(), ElementsAre(HasSubstr("had no row"), HasSubstr("cannot be written")));
  EXPECT_THAT(names(catalog), ElementsAre("epoch_1.pth"));
  catalog.pin("epoch_1.pth", true);
  Catalog again(storage);
  EXPECT_THAT(again.open(), IsEmpty());
  EXPECT_EQ(again.rows(), catalog.rows());
}

TEST(Catalog, UnreadableLogIsRebuilt) {
  TempDir dir;
  const auto ops = std::make_shared<FaultFileOps>();
  LocalStorage storage(dir.path(), ops);
  storage.prepare();
  Catalog catalog(storage);
  catalog.open();
  catalog.add(save(storage, "epoch_1.pth", 1));
  ops->fail_next(FileOp::kPread, EIO);
  Catalog again(storage);
  EXPECT_THAT(again.open(), ::testing::Contains(AllOf(HasSubstr("corrupt"), HasSubstr("pread"))));
  ASSERT_EQ(again.rows().size(), 1U);
  expect_unknown(again.rows()[0]);
}

TEST(Catalog, StorageThatCannotBeListedThrows) {
  TempDir dir;
  LocalStorage storage(dir.path() / "absent");
  Catalog catalog(storage);
  EXPECT_THROW(catalog.open(), StorageError);
}

// Counts what is read, and passes the rest on.
class MeteredStorage final : public Storage {
 public:
  explicit MeteredStorage(MemoryStorage& memory) : memory_(memory) {}
  std::string location() const override { return memory_.location(); }
  std::vector<std::string> prepare() override { return {}; }
  CommitTimes commit(std::string_view name, FileImage& image) override {
    return memory_.commit(name, image);
  }
  std::unique_ptr<StoredObject> open(std::string_view name) const override {
    struct Object final : StoredObject {
      Object(std::unique_ptr<StoredObject> object, std::uint64_t& read)
          : object_(std::move(object)), read_(read) {}
      std::uint64_t size() const override { return object_->size(); }
      void read(std::uint64_t offset, std::span<std::byte> out) const override {
        read_ += out.size();
        object_->read(offset, out);
      }
      std::unique_ptr<StoredObject> object_;
      std::uint64_t& read_;
    };
    return std::make_unique<Object>(memory_.open(name), bytes_read_);
  }
  std::vector<ObjectInfo> list() const override { return memory_.list(); }
  void retire(std::string_view name) override { memory_.retire(name); }

  std::uint64_t bytes_read() const { return bytes_read_; }

 private:
  MemoryStorage& memory_;
  mutable std::uint64_t bytes_read_ = 0;
};

TEST(Catalog, OpeningAThousandCheckpointsReadsTheirIdentitiesOnly) {
  MemoryStorage memory;
  constexpr std::uint64_t kFileBytes = 1'000'000;
  const CheckpointIdentity identity = identity_of(1, 1);
  commit_bytes(memory, "epoch_0.pth", checkpoint_file(identity, 1, kFileBytes));
  std::vector<std::byte> log = catalog_header();
  for (int i = 0; i < 1'000; ++i) {
    CatalogRow row;
    row.name = "epoch_" + std::to_string(i) + ".pth";
    row.identity = identity;
    row.size = memory.list()[0].size;
    memory.link("epoch_0.pth", row.name);
    const auto record = catalog_record(row);
    log.insert(log.end(), record.begin(), record.end());
  }
  commit_bytes(memory, kLog, log);
  MeteredStorage storage(memory);
  Catalog catalog(storage);
  EXPECT_THAT(catalog.open(), IsEmpty());
  EXPECT_EQ(catalog.rows().size(), 1'000U);
  EXPECT_LT(storage.bytes_read() - log.size(), 1'000U * (80 << 10)) << "the storages were read";
}

TEST(Catalog, RandomBytesAreRebuiltWithLittleMemory) {
  std::mt19937 random(3);
  MemoryStorage storage;
  save(storage, "epoch_1.pth", 1);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::byte> log(random() % 5'000);
    for (std::byte& byte : log) byte = static_cast<std::byte>(random());
    if (round % 2 == 0) {
      const auto header = catalog_header();
      log.insert(log.begin(), header.begin(), header.end());
    }
    commit_bytes(storage, kLog, log);
    Catalog catalog(storage);
    const AllocationMeter meter;
    catalog.open();
    EXPECT_LT(meter.peak(), 200U << 10);
    ASSERT_EQ(catalog.rows().size(), 1U);
    expect_unknown(catalog.rows()[0]);
  }
}

}  // namespace
}  // namespace millrace::test
