// Any bytes as a state record: as they are, and as the payload behind a header that is right, since
// the checksums let no other bytes through to the decoder.
#include "millrace/io/crc32.h"
#include "millrace/io/state_record.h"
#include "tests/fuzz/invariant.h"
#include "tests/io/support/allocation_meter.h"

using namespace millrace;
using fuzz::invariant;

namespace {

constexpr std::size_t kHeaderBytes = 32;
// A section takes 17 bytes at least, and a node of a map with two strings.
constexpr std::size_t kPerByte = 16, kConstant = 16'384;

void put(std::vector<std::byte>& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<std::byte>(value >> (8 * i)));
}

std::vector<std::byte> with_header(std::span<const std::byte> payload) {
  std::vector<std::byte> out = encode_state_record({});
  out.resize(16);  // magic, version and zeros
  put(out, payload.size(), 8);
  put(out, crc32(payload), 4);
  put(out, crc32(out), 4);
  out.insert(out.end(), payload.begin(), payload.end());
  return out;
}

void check_damage(std::vector<std::byte> bytes) {
  const std::size_t at = fuzz::place_in(bytes, bytes.size());
  invariant(!decode_state_record(std::span(bytes).first(at)).ok(), "a cut record is a fault");
  bytes[at] ^= std::byte{0x10};
  invariant(!decode_state_record(bytes).ok(), "a flipped byte is a fault");
}

void check(std::span<const std::byte> bytes) {
  const test::AllocationMeter meter;
  const auto record = decode_state_record(bytes);
  invariant(meter.peak() <= kPerByte * bytes.size() + kConstant,
            "memory in proportion to the input");
  if (!record) return;
  const auto encoded = encode_state_record(record.value());
  invariant(encoded.size() <= bytes.size(), "a record is as long as what it says");
  const auto again = decode_state_record(encoded);
  invariant(again.ok(), "what was decoded and encoded decodes");
  invariant(again.value().identity == record.value().identity, "with its identity");
  invariant(again.value().sections == record.value().sections, "and its sections");
  invariant(encode_state_record(again.value()) == encoded, "and encodes to the same bytes");
  check_damage(encoded);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = fuzz::bytes_of(data, size);
  check(bytes);
  check(with_header(bytes));
  if (size > kHeaderBytes) check(with_header(bytes.subspan(kHeaderBytes)));
  return 0;
}
