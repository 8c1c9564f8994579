#include "millrace/runtime/staging/copy_streaming.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "millrace/io/crc32.h"
#include "tests/support/images.h"

namespace millrace {
namespace {

TEST(CopyStreaming, CopiesEverySizeToAndFromEveryAlignmentAndNothingElse) {
  constexpr std::size_t kMost = 20'000, kMargin = 128;
  const std::vector<std::byte> source = test::pattern(kMost + 64, 1);
  const std::vector<std::byte> blank = test::pattern(kMost + 2 * kMargin, 2);
  for (const std::size_t size :
       {0UL, 1UL, 15UL, 63UL, 64UL, 100UL, 4095UL, 4096UL, 4097UL, 4159UL, 4160UL, 8192UL, kMost}) {
    for (const std::size_t to : {0UL, 1UL, 8UL, 16UL, 63UL}) {
      for (const std::size_t from : {0UL, 1UL, 16UL, 33UL}) {
        std::vector<std::byte> target = blank;
        const auto copied = std::span(source).subspan(from, size);
        const std::uint32_t checksum =
            copy_streaming(std::span(target).subspan(kMargin + to, size), copied);
        ASSERT_EQ(checksum, crc32(copied));
        const auto begin = target.begin() + kMargin + static_cast<std::ptrdiff_t>(to);
        ASSERT_TRUE(std::equal(begin, begin + static_cast<std::ptrdiff_t>(size),
                               source.begin() + static_cast<std::ptrdiff_t>(from)))
            << size << " bytes from " << from << " to " << to;
        ASSERT_TRUE(std::equal(target.begin(), begin, blank.begin()));
        ASSERT_TRUE(std::equal(
            begin + static_cast<std::ptrdiff_t>(size), target.end(),
            blank.begin() + (begin - target.begin()) + static_cast<std::ptrdiff_t>(size)));
      }
    }
  }
}

}  // namespace
}  // namespace millrace
