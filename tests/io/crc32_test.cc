#include "millrace/io/crc32.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string_view>
#include <vector>

namespace millrace {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(Crc32, KnownAnswer) {
  EXPECT_EQ(crc32(bytes_of("123456789")), 0xCBF43926U);
  EXPECT_EQ(crc32({}), 0U);
  EXPECT_EQ(crc32({}, 0x1234U), 0x1234U);
}

TEST(Crc32, SeedContinues) {
  EXPECT_EQ(crc32(bytes_of("6789"), crc32(bytes_of("12345"))), 0xCBF43926U);
}

TEST(Crc32, CombineJoinsParts) {
  EXPECT_EQ(crc32_combine(crc32(bytes_of("12345")), crc32(bytes_of("6789")), 4), 0xCBF43926U);
  EXPECT_EQ(crc32_combine(0x1234U, 0, 0), 0x1234U);
  // Parts beyond 4 GiB: n zeros, then n more, against twice as many.
  const std::uint64_t n = std::uint64_t{5} << 30;
  const std::uint32_t zero = crc32(bytes_of(std::string_view("\0", 1)));
  std::uint32_t power = zero;  // of 2^k zeros
  std::uint32_t five = 0;
  for (int bit = 0; bit < 33; ++bit) {
    if ((n >> bit & 1) != 0) five = crc32_combine(five, power, std::uint64_t{1} << bit);
    power = crc32_combine(power, power, std::uint64_t{1} << bit);
  }
  std::uint32_t one_gib = zero;
  for (int bit = 0; bit < 30; ++bit) {
    one_gib = crc32_combine(one_gib, one_gib, std::uint64_t{1} << bit);
  }
  std::uint32_t by_gib = 0;
  for (int i = 0; i < 5; ++i) by_gib = crc32_combine(by_gib, one_gib, std::uint64_t{1} << 30);
  EXPECT_EQ(five, by_gib);
}

TEST(Crc32, CopyChecksumsWhatItCopied) {
  for (const std::size_t size : {0UL, 1UL, 255UL, 262'144UL, 262'145UL, 1'000'003UL}) {
    std::vector<std::byte> from(size), to(size);
    for (std::size_t i = 0; i < size; ++i) from[i] = static_cast<std::byte>(i * 31 >> 3);
    EXPECT_EQ(copy_with_crc(to, from), crc32(from));
    EXPECT_EQ(to, from);
    EXPECT_EQ(copy_with_crc(to, from, 77), crc32(from, 77));
  }
}

}  // namespace
}  // namespace millrace
