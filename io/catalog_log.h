// The bytes of the catalog: changes, one after the other, little-endian.
//
//   offset  size  field
//   0       8     magic "MRCATLG\0"
//   8       4     format version (1)
//   12      4     CRC-32 of bytes 0..11; these 16 bytes stay as they are in every version
//   16            records:
//           4     length of the payload, at most 1 MiB
//           4     CRC-32 of the length: a record that was cut is told from one that was damaged
//           4     CRC-32 of the payload
//           n     payload (record_stream.h): kind, then the change
//
// Appending is not atomic: a kill leaves a prefix of the last record, which then counts as never
// written. A byte that was altered, or a sector that a power loss left unwritten before others,
// makes a record corrupt; what came after it is not known, so no row may claim to be complete. The
// two look alike, and the first may hide changes that were durable, so both keep what they might.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "millrace/io/catalog_row.h"

namespace millrace {

struct CatalogScore {
  std::string save_id, metric;
  double value = 0;
};
struct CatalogPin {
  std::string name;
  bool pinned = false;
};
struct CatalogEnd {  // the file is gone
  std::string name;
};
// A row is added, in place of one of the same name, or a row is changed.
using CatalogChange = std::variant<CatalogRow, CatalogScore, CatalogPin, CatalogEnd>;

// Makes the change; false when no row is meant by it. Rows keep the order they were added in.
bool apply_change(std::vector<CatalogRow>& rows, const CatalogChange& change);

std::vector<std::byte> catalog_header();
// False, and the log is as it was, when the change is longer than a record can be.
bool append_record(std::vector<std::byte>& log, const CatalogChange& change);
std::vector<std::byte> catalog_record(const CatalogChange& change);  // throws Error then

struct CatalogLog {
  enum class State {
    whole,
    torn,     // a crash cut the last record
    corrupt,  // scores and pins of every row are unknown
    newer,    // of a later format version: no rows, and not ours to change
  };
  State state = State::whole;
  std::string problem;  // when not whole: a sentence about what follows the sound bytes
  std::vector<CatalogRow> rows;
  std::size_t records = 0;  // that are sound
  std::uint64_t bytes = 0;  // in the log, sound or not
};

// Any bytes are accepted. Each row that comes of them fits a record. Allocates a small multiple of
// what is there, never what a length says.
CatalogLog decode_catalog(std::span<const std::byte> bytes);

}  // namespace millrace
