// The rule for storages that cannot rename, link or append, on the fake of one.
#include "tests/support/object_storage.h"

#include "tests/io/storage_suite.h"

namespace millrace::test {
namespace {

using ::testing::ElementsAre;

struct ObjectFactory {
  std::unique_ptr<Storage> make() { return std::make_unique<ObjectStorage>(); }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Object, StorageSuite, ObjectFactory);

struct PutOnlyFactory {
  std::unique_ptr<Storage> make() { return std::make_unique<ObjectStorage>(false); }
};
INSTANTIATE_TYPED_TEST_SUITE_P(PutOnly, StorageSuite, PutOnlyFactory);

Storage::NamedCommit commit_as(Storage& storage, std::string_view text, std::string name) {
  BytesImage image(text);
  return storage.commit_named("a", image, [name] { return name; });
}

TEST(ObjectStorage, CommitIsOnePut) {
  ObjectStorage storage;
  commit_text(storage, "a", "12345");
  storage.retire("a");
  EXPECT_THAT(storage.requests(), ElementsAre("put a 5", "delete a"));
}

TEST(ObjectStorage, CommitByNameCopiesOnTheServer) {
  ObjectStorage storage;
  commit_as(storage, "12345", "a-1.pth");
  EXPECT_THAT(storage.requests(),
              ElementsAre("put .a.*.tmp 5", "copy .a.*.tmp a-1.pth", "delete .a.*.tmp"));
  EXPECT_EQ(storage.bytes_put(), 5U);
}

TEST(ObjectStorage, CommitByNameStreamsWhereNothingCopies) {
  ObjectStorage storage(false);
  commit_as(storage, "12345", "a-1.pth");
  EXPECT_THAT(storage.requests(),
              ElementsAre("put .a.*.tmp 5", "get .a.*.tmp", "put a-1.pth 5", "delete .a.*.tmp"));
  EXPECT_EQ(storage.bytes_put(), 10U);
}

TEST(ObjectStorage, CommitByNameThatCannotCopyLeavesNothing) {
  ObjectStorage storage;
  storage.fail_next("copy");
  EXPECT_THROW(commit_as(storage, "12345", "a-1.pth"), StorageError);
  EXPECT_TRUE(storage.list().empty());
  EXPECT_TRUE(storage.prepare().empty());
}

TEST(ObjectStorage, HiddenNamesOfACrashAreDeletedByPrepare) {
  ObjectStorage storage;
  storage.fail_next("delete");
  EXPECT_THROW(commit_as(storage, "12345", "a-1.pth"), StorageError);
  EXPECT_THAT(names_of(storage), ElementsAre("a-1.pth"));
  EXPECT_EQ(storage.prepare().size(), 1U);
  EXPECT_TRUE(storage.prepare().empty());
}

TEST(ObjectStorage, NeitherLinksNorAppends) {
  ObjectStorage storage;
  commit_text(storage, "a", "12345");
  storage.forget_requests();
  EXPECT_FALSE(storage.link("a", "b"));
  EXPECT_FALSE(storage.append("a", {}));
  EXPECT_TRUE(storage.requests().empty());
}

}  // namespace
}  // namespace millrace::test
