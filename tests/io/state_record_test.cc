#include "millrace/io/state_record.h"

#include <gtest/gtest.h>

#include <cctype>
#include <set>

#include "millrace/io/crc32.h"
#include "tests/io/support/allocation_meter.h"

namespace millrace {
namespace {

StateRecord full() {
  StateRecord record;
  record.identity = {new_save_id(), new_save_id(), 42, "interval", 3, -1};
  record.sections["rng"] = std::string("\0\1\2", 3);
  record.sections["hook/ema"] = std::string(10'000, 'x');
  record.sections[""] = "";
  return record;
}

// Sets the envelope's length and checksums right, so that a change reaches the payload's decoder.
void seal(std::vector<std::byte>& bytes) {
  const auto put = [&](std::size_t at, std::uint64_t value, int size) {
    for (int i = 0; i < size; ++i) bytes[at + i] = static_cast<std::byte>(value >> (8 * i));
  };
  put(16, bytes.size() - 32, 8);
  put(24, crc32(std::span(bytes).subspan(32)), 4);
  put(28, crc32(std::span(bytes).first(28)), 4);
}

TEST(StateRecord, RoundTrip) {
  for (const StateRecord& record : {StateRecord{}, full()}) {
    const auto back = decode_state_record(encode_state_record(record));
    ASSERT_TRUE(back.ok()) << back.fault().text();
    EXPECT_EQ(back.value().identity.save_id, record.identity.save_id);
    EXPECT_EQ(back.value().identity.parent_id, record.identity.parent_id);
    EXPECT_EQ(back.value().identity.generation, record.identity.generation);
    EXPECT_EQ(back.value().identity.reason, record.identity.reason);
    EXPECT_EQ(back.value().identity.epoch, record.identity.epoch);
    EXPECT_EQ(back.value().identity.iter, record.identity.iter);
    EXPECT_EQ(back.value().sections, record.sections);
  }
}

TEST(StateRecord, EncodingIsDeterministic) {
  const StateRecord record = full();
  EXPECT_EQ(encode_state_record(record), encode_state_record(record));
}

TEST(StateRecord, EveryPrefixIsTruncated) {
  const auto bytes = encode_state_record(full());
  for (std::size_t size = 0; size < 400; ++size) {
    EXPECT_EQ(decode_state_record(std::span(bytes).first(size)).fault().kind,
              Fault::Kind::truncated);
  }
  EXPECT_FALSE(decode_state_record(std::span(bytes).first(bytes.size() - 1)).ok());
}

TEST(StateRecord, EveryFlippedBitIsNoticed) {
  auto bytes = encode_state_record(full());
  bytes = encode_state_record(StateRecord{});
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_FALSE(decode_state_record(bytes).ok()) << bit;
    bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
  }
}

TEST(StateRecord, ForeignBytesAreForeign) {
  const std::vector<std::byte> bytes(100, std::byte{'x'});
  EXPECT_EQ(decode_state_record(bytes).fault().kind, Fault::Kind::foreign);
}

TEST(StateRecord, ANewerVersionIsForeign) {
  auto bytes = encode_state_record(full());
  bytes[8] = std::byte{2};
  seal(bytes);
  const auto result = decode_state_record(bytes);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.fault().kind, Fault::Kind::foreign);
}

// With the checksums right, each byte of the payload set to 0xFF reaches every length in turn.
TEST(StateRecord, HostileLengthsAllocateNothing) {
  const auto good = encode_state_record(full());
  for (std::size_t at = 32; at < 300; ++at) {
    auto bytes = good;
    bytes[at] = std::byte{0xFF};
    if (at + 8 < bytes.size()) bytes[at + 7] = std::byte{0x7F};
    seal(bytes);
    const test::AllocationMeter meter;
    const auto result = decode_state_record(bytes);
    EXPECT_LE(meter.peak(), 4 * bytes.size() + 65'536) << at;
  }
}

TEST(StateRecord, AGenerationAfterWhichNoneCanComeIsCorrupt) {
  StateRecord record = full();
  record.identity.generation = kMaxGeneration;
  EXPECT_TRUE(decode_state_record(encode_state_record(record)).ok());
  for (const std::uint64_t generation : {kMaxGeneration + 1, ~std::uint64_t{0}}) {
    record.identity.generation = generation;
    const auto result = decode_state_record(encode_state_record(record));
    ASSERT_FALSE(result.ok()) << generation;
    EXPECT_EQ(result.fault().kind, Fault::Kind::corrupt);
    EXPECT_NE(result.fault().text().find("generation " + std::to_string(generation)),
              std::string::npos)
        << result.fault().text();
  }
}

TEST(StateRecord, BytesAfterTheLastSectionAreCorrupt) {
  auto bytes = encode_state_record(full());
  bytes.push_back(std::byte{0});
  EXPECT_EQ(decode_state_record(bytes).fault().kind, Fault::Kind::corrupt);
  seal(bytes);
  EXPECT_EQ(decode_state_record(bytes).fault().kind, Fault::Kind::corrupt);
}

TEST(SaveId, IsThirtyTwoHexDigitsAndNew) {
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) {
    const std::string id = new_save_id();
    EXPECT_EQ(id.size(), 32U);
    EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), std::string::npos);
    EXPECT_TRUE(seen.insert(id).second);
  }
}

}  // namespace
}  // namespace millrace
