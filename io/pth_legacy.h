// The format of torch.save before 1.6, which OpenMMLab's publish tools still write
// (_use_new_zipfile_serialization=False). Bytes:
//
//   pickle  0x1950a86a20f9469cfc6c                 each pickle with a memo of its own
//   pickle  1001
//   pickle  {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {...}}
//   pickle  the object; a persistent id has a sixth part, the view, None since torch 0.4
//   pickle  [key, ...]                             storages, in the order they follow
//   then for each key: int64 numel, numel elements
//
// There are no checksums: a flipped bit in a storage cannot be noticed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "millrace/io/pickle_value.h"
#include "millrace/io/storage.h"
#include "millrace/io/unpickler.h"
#include "millrace/runtime/async/error.h"

namespace millrace {

struct LegacyStorage {
  std::string key;
  std::uint64_t offset = 0, size = 0;  // bytes
};

struct LegacyFile {
  pickle::Value root;  // persistent ids cut to five parts, as in zip files
  std::vector<LegacyStorage> storages;
};

// True when the file may be a legacy one: it starts as a pickle does.
bool maybe_legacy(std::span<const std::byte> head);

// A pickle that is not torch's is Kind::foreign.
Result<LegacyFile> read_legacy(const StoredObject& object, std::uint64_t max_pickle_bytes,
                               const pickle::UnpickleLimits& limits);

// Bytes of one element of a storage class; 0 for a class that is not known.
std::uint64_t storage_element_size(const std::string& storage_class);

}  // namespace millrace
