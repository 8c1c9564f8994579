#include "millrace/runtime/staging/arena.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <vector>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

std::size_t resident_pages(std::span<std::byte> bytes) {
  std::vector<unsigned char> pages((bytes.size() + 4095) / 4096);
  EXPECT_EQ(mincore(bytes.data(), bytes.size(), pages.data()), 0);
  std::size_t count = 0;
  for (const unsigned char page : pages) count += page & 1;
  return count;
}

TEST(Arena, IsTouchedBeforeUse) {
  Arena arena;
  EXPECT_TRUE(arena.bytes().empty());
  arena.reserve(10 * 4096 + 1);
  EXPECT_EQ(arena.bytes().size(), 11u * 4096);
  EXPECT_EQ(resident_pages(arena.bytes()), 11u);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(arena.bytes().data()) % 4096, 0u);
  std::memset(arena.bytes().data(), 1, arena.bytes().size());
}

TEST(Arena, ABlockThatIsLargeEnoughIsKept) {
  Arena arena;
  arena.reserve(100'000);
  const std::byte* const block = arena.bytes().data();
  arena.bytes()[5] = std::byte{7};
  arena.reserve(100'000);
  arena.reserve(1);
  EXPECT_EQ(arena.bytes().data(), block);
  EXPECT_EQ(arena.bytes()[5], std::byte{7});
  arena.reserve(10 << 20);
  EXPECT_GE(arena.bytes().size(), std::uint64_t{10} << 20);
  arena.release();
  EXPECT_TRUE(arena.bytes().empty());
}

TEST(Arena, RefusedMemoryIsAnError) {
  Arena arena;
  EXPECT_THROW(arena.reserve(std::uint64_t{1} << 60), Error);
  arena.reserve(4096);
  EXPECT_EQ(arena.bytes().size(), 4096u);
}

}  // namespace
}  // namespace millrace
