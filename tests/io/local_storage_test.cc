#include "millrace/io/local_storage.h"

#include <fstream>

#include "tests/io/storage_suite.h"
#include "tests/support/temp_dir.h"

namespace millrace::test {
namespace {

namespace fs = std::filesystem;

struct LocalFactory {
  TempDir dir;
  std::unique_ptr<Storage> make() { return std::make_unique<LocalStorage>(dir.path() / "run"); }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Local, StorageSuite, LocalFactory);

// The path of file systems without O_DIRECT.
struct BufferedFactory {
  TempDir dir;
  std::unique_ptr<Storage> make() {
    WriteOptions options;
    options.direct_from = ~std::uint64_t{0};
    options.block_bytes = 1 << 20;
    return std::make_unique<LocalStorage>(dir.path(), std::make_shared<PosixFileOps>(), options);
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Buffered, StorageSuite, BufferedFactory);

// Small files past the page cache too.
struct DirectFactory {
  TempDir dir;
  std::unique_ptr<Storage> make() {
    WriteOptions options;
    options.direct_from = 0;
    options.block_bytes = 1 << 20;
    return std::make_unique<LocalStorage>(dir.path(), std::make_shared<PosixFileOps>(), options);
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Direct, StorageSuite, DirectFactory);

void touch(const fs::path& path) { std::ofstream(path) << "x"; }

std::size_t files_in(const fs::path& directory) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(directory), fs::directory_iterator()));
}

// Bytes at an address that O_DIRECT takes, or one byte beside it.
TEST(LocalStorage, AlignedAndUnalignedImagesGiveTheSameFile) {
  TempDir dir;
  LocalStorage storage(dir.path());
  const std::size_t size = (std::size_t{9} << 20) + 123;
  const auto bytes = pattern(size, 1);
  const std::unique_ptr<std::byte, decltype(&std::free)> pages(
      static_cast<std::byte*>(std::aligned_alloc(4096, (size / 4096 + 2) * 4096)), &std::free);
  for (const std::size_t shift : {0, 1, 512}) {
    std::copy(bytes.begin(), bytes.end(), pages.get() + shift);
    BytesImage image(std::span<const std::byte>(pages.get() + shift, size));
    storage.commit("a", image);
    EXPECT_TRUE(read_all(storage, "a") == bytes) << shift;
  }
}

TEST(LocalStorage, PrepareMakesParents) {
  TempDir dir;
  LocalStorage storage(dir.path() / "a" / "b" / "c");
  EXPECT_THROW(storage.list(), StorageError);
  storage.prepare();
  commit_text(storage, "x", "y");
  EXPECT_TRUE(fs::exists(dir.path() / "a/b/c/x"));
}

TEST(LocalStorage, PrepareRefusesAFile) {
  TempDir dir;
  touch(dir.path() / "file");
  for (const fs::path& path : {dir.path() / "file", dir.path() / "file" / "below"}) {
    LocalStorage storage(path);
    try {
      storage.prepare();
      FAIL() << "prepared " << path;
    } catch (const StorageError& error) {
      EXPECT_EQ(error.error_number(), ENOTDIR);
      EXPECT_THAT(error.what(), ::testing::HasSubstr((dir.path() / "file").string()));
      EXPECT_THAT(error.what(), ::testing::HasSubstr("choose another directory"));
    }
  }
}

TEST(LocalStorage, PrepareLeavesNoProbe) {
  TempDir dir;
  LocalStorage storage(dir.path());
  storage.prepare();
  EXPECT_EQ(files_in(dir.path()), 0U);
}

TEST(LocalStorage, SweepsExactlyItsOwnLeftovers) {
  TempDir dir;
  const std::vector<std::string> ours = {".a.pth.0123456789abcdef.tmp",
                                         ".epoch_1.pth.00000000000000ff.trash"};
  const std::vector<std::string> foreign = {".a.pth.0123456789abcde.tmp",    // 15 digits
                                            ".a.pth.0123456789ABCDEF.tmp",   // capitals
                                            ".0123456789abcdef.tmp",         // no object
                                            "..a.0123456789abcdef.tmp",      // a bad object name
                                            ".a.pth.0123456789abcdef.temp",  // another suffix
                                            ".a.pth-0123456789abcdef.tmp",   // no dot
                                            ".bashrc"};
  for (const auto& name : ours) touch(dir.path() / name);
  for (const auto& name : foreign) touch(dir.path() / name);
  LocalStorage storage(dir.path());
  EXPECT_TRUE(storage.list().empty());
  EXPECT_EQ(storage.prepare(), ours);
  EXPECT_EQ(files_in(dir.path()), foreign.size());
}

TEST(LocalStorage, DirectoriesAndDanglingLinksAreNoObjects) {
  TempDir dir;
  fs::create_directory(dir.path() / "vis_data");
  fs::create_symlink(dir.path() / "nowhere", dir.path() / "dangling");
  LocalStorage storage(dir.path());
  commit_text(storage, "a", "b");
  EXPECT_THAT(names_of(storage), ::testing::ElementsAre("a"));
  EXPECT_THROW(storage.open("vis_data"), StorageError);
}

TEST(LocalStorage, LocationIsThePathAsGiven) {
  EXPECT_EQ(LocalStorage("work/run/").location(), "work/run");
  EXPECT_EQ(LocalStorage("/x").location(), "/x");
  EXPECT_EQ(LocalStorage("/").location(), "/");
  EXPECT_EQ(LocalStorage("").location(), ".");
}

TEST(LocalStorage, OverwritingKeepsOtherHardLinksOfTheOldBytes) {
  TempDir dir;
  LocalStorage storage(dir.path());
  commit_text(storage, "a", "old");
  fs::create_hard_link(dir.path() / "a", dir.path() / "best");
  commit_text(storage, "a", "new");
  EXPECT_EQ(read_text(storage, "best"), "old");
  EXPECT_EQ(files_in(dir.path()), 2U);
}

}  // namespace
}  // namespace millrace::test
