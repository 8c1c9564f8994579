// What only Millrace reads, inside a checkpoint: one zip entry `<root>/millrace/state`, ignored by
// Python and dropped by publish.
//
// Bytes, little-endian:
//
//   offset  size  field
//   0       8     magic "MRSTATE\0"
//   8       4     format version (1)
//   12      4     reserved, 0
//   16      8     payload length
//   24      4     CRC-32 of the payload
//   28      4     CRC-32 of bytes 0..27
//   32      n     payload: cereal portable binary
//
// The header is checked before cereal sees a byte, because cereal trusts the lengths it reads;
// sizes inside the payload are bounded by the payload itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "millrace/runtime/async/error.h"

namespace millrace {

// No generation is higher: decoders refuse one that is, so that the next save's never starts over
// at 0. Saves that come after this one share it, and the times of their files order them.
inline constexpr std::uint64_t kMaxGeneration = ~std::uint64_t{0} >> 1;

// Who a checkpoint is. Newest means highest generation, not highest step: a run resumed from an
// older file becomes the live branch.
struct CheckpointIdentity {
  std::string save_id;    // 32 hex digits, random
  std::string parent_id;  // the save this run continued from, or empty
  std::uint64_t generation = 0;
  std::string reason;      // interval, last, stop ...
  std::int64_t epoch = 0;  // finished when captured
  std::int64_t iter = 0;

  bool operator==(const CheckpointIdentity&) const = default;
};

struct StateRecord {
  CheckpointIdentity identity;
  // Named sections, each opaque here: "rng", "data", "hub", "hook/<name>", "object/<name>" ... A
  // resumed run that does not know a section writes it into its own checkpoints again when it is a
  // "hook/..." or an "object/...", and drops it otherwise (runtime/engine/state_sections.h).
  std::map<std::string, std::string> sections;
};

// A random save id: 32 lower-case hex digits.
std::string new_save_id();

std::vector<std::byte> encode_state_record(const StateRecord& record);
// Allocates a small multiple of the input's size plus a constant, never what a length says.
Result<StateRecord> decode_state_record(std::span<const std::byte> bytes);

}  // namespace millrace
