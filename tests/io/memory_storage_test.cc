#include "millrace/io/memory_storage.h"

#include "tests/io/storage_suite.h"

namespace millrace::test {
namespace {

struct MemoryFactory {
  std::unique_ptr<Storage> make() { return std::make_unique<MemoryStorage>(); }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Memory, StorageSuite, MemoryFactory);

TEST(MemoryStorage, LaterCommitsHaveLaterTimes) {
  MemoryStorage storage;
  for (const char* name : {"c", "b", "a"}) commit_text(storage, name, "x");
  const auto listed = storage.list();
  EXPECT_GT(listed[0].modified_ns, listed[1].modified_ns);
  EXPECT_GT(listed[1].modified_ns, listed[2].modified_ns);
}

}  // namespace
}  // namespace millrace::test
