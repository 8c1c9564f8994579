// Any bytes as a catalog: as they are, and cut into records whose lengths and checksums are right,
// since those let no other bytes through to the decoder. A share of them are opened beside the
// files they speak of, and a few with scores as long as records can be.
#include <algorithm>

#include "millrace/io/catalog.h"
#include "millrace/io/crc32.h"
#include "millrace/io/memory_storage.h"
#include "tests/fuzz/invariant.h"
#include "tests/io/support/allocation_meter.h"
#include "tests/support/checkpoint_file.h"

using namespace millrace;
using fuzz::invariant;

namespace {

constexpr std::size_t kPerByte = 128, kConstant = 65'536;
constexpr std::size_t kOpenOneOf = 32, kGrowOneOf = 2048;  // inputs; each takes its time

void put(std::vector<std::byte>& out, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) out.push_back(static_cast<std::byte>(value >> (8 * i)));
}

// Of two bytes of length and a payload each, in place of the head that a record has.
std::vector<std::byte> with_heads(std::span<const std::byte> bytes) {
  std::vector<std::byte> log = catalog_header();
  while (bytes.size() >= 2) {
    const std::size_t length =
        std::to_integer<std::size_t>(bytes[0]) | std::to_integer<std::size_t>(bytes[1]) << 8;
    const auto payload = bytes.subspan(2, std::min(length, bytes.size() - 2));
    const std::size_t head = log.size();
    put(log, static_cast<std::uint32_t>(payload.size()));
    put(log, crc32(std::span(log).subspan(head)));
    put(log, crc32(payload));
    log.insert(log.end(), payload.begin(), payload.end());
    bytes = bytes.subspan(2 + payload.size());
  }
  return log;
}

std::vector<std::byte> encode(const std::vector<CatalogRow>& rows) {
  std::vector<std::byte> log = catalog_header();
  for (const CatalogRow& row : rows) {
    const auto record = catalog_record(row);
    log.insert(log.end(), record.begin(), record.end());
  }
  return log;
}

// A crash cuts the log; only a damaged disk alters it. A log that says "whole" is what was written.
void check_damage(std::span<const std::byte> bytes, const CatalogLog& whole) {
  const std::size_t at = fuzz::place_in(bytes, bytes.size());
  const CatalogLog cut = decode_catalog(bytes.first(at));
  const bool in_header = at < catalog_header().size();
  invariant(in_header == (cut.state == CatalogLog::State::corrupt), "a cut log is not corrupt");
  invariant(cut.records <= whole.records, "a cut log has no more records");
  std::vector<std::byte> flipped(bytes.begin(), bytes.end());
  flipped[at] ^= std::byte{0x10};
  invariant(decode_catalog(flipped).state == CatalogLog::State::corrupt, "a flipped byte is found");
}

void check_rows(const CatalogLog& log) {
  std::vector<std::string> names;
  for (const CatalogRow& row : log.rows) {
    names.push_back(row.name);
    if (log.state != CatalogLog::State::corrupt) continue;
    invariant(row.scores.empty() && !row.scores_known && !row.pinned, "what is unknown is so");
  }
  std::sort(names.begin(), names.end());
  invariant(std::adjacent_find(names.begin(), names.end()) == names.end(), "one row for a name");
  const auto encoded = encode(log.rows);
  const CatalogLog again = decode_catalog(encoded);
  invariant(again.state == CatalogLog::State::whole, "what was decoded and encoded is whole");
  invariant(again.records == log.rows.size(), "with a record for each row");
  invariant(encode(again.rows) == encoded, "and encodes to the same bytes");
}

void check(std::span<const std::byte> bytes) {
  const test::AllocationMeter meter;
  const CatalogLog log = decode_catalog(bytes);
  invariant(meter.peak() <= kPerByte * bytes.size() + kConstant,
            "memory in proportion to the input");
  const bool whole = log.state == CatalogLog::State::whole;
  invariant(log.bytes == bytes.size(), "the log knows its size");
  invariant(log.problem.empty() == whole, "a problem is said where there is one");
  check_rows(log);
  if (whole) check_damage(bytes, log);
}

// The files of the corpus.
MemoryStorage& files() {
  static MemoryStorage storage;
  static const bool made = [] {
    const CheckpointIdentity identity{"00112233445566778899aabbccddeeff", "", 1, "interval", 1, 4};
    test::commit_bytes(storage, "epoch_1.pth", test::checkpoint_file(identity));
    return storage.link("epoch_1.pth", "best_accuracy_epoch_1.pth");
  }();
  invariant(made, "storage in memory has links");
  return storage;
}

// Whatever the log says, each file is known afterwards, and the log is put right.
void check_open(std::span<const std::byte> bytes, bool newer) {
  test::commit_bytes(files(), Catalog::kName, {bytes.begin(), bytes.end()});
  Catalog catalog(files());
  catalog.open();
  invariant(catalog.rows().size() == 2, "a row for each file");
  if (newer) return;
  Catalog again(files());
  invariant(again.open().empty(), "what was opened needs no other repair");
  invariant(encode(again.rows()) == encode(catalog.rows()), "and says the same");
}

// With a score for every row, of a length that the input decides.
std::vector<std::byte> grown(std::span<const std::byte> bytes, const CatalogLog& log) {
  std::vector<std::byte> all(bytes.begin(), bytes.end());
  for (int letter = 'a'; letter < 'd'; ++letter) {
    for (const CatalogRow& row : log.rows) {
      const std::size_t length = fuzz::place_in(all, std::size_t{1} << 20);
      const std::string metric(length, static_cast<char>(letter));
      append_record(all, CatalogScore{row.identity.save_id, metric, 1});
    }
  }
  return all;
}

void check_all(std::span<const std::byte> bytes) {
  check(bytes);
  const std::size_t turn = fuzz::place_in(bytes, kGrowOneOf);
  if (turn % kOpenOneOf != 0) return;
  const CatalogLog log = decode_catalog(bytes);
  check_open(bytes, log.state == CatalogLog::State::newer);
  if (turn != 0 || log.state != CatalogLog::State::whole || log.rows.size() > 3) return;
  const std::vector<std::byte> large = grown(bytes, log);
  check(large);
  check_open(large, false);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = fuzz::bytes_of(data, size);
  check_all(bytes);
  check_all(with_heads(bytes));
  return 0;
}
