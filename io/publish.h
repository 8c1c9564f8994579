// Publishing: a checkpoint reduced to the keys that are meant for others, under a name that proves
// its bytes: `<stem>-<first 8 hex of sha256sum>.pth`.
//
// The new file has the top-level keys asked for, in their order in the source, and the storages
// that their tensors use; shared and overlapping tensors stay so. Our own record is left out, and
// so is every byte that only a removed key used. The file depends on that content alone: the same
// source gives the same name.
#pragma once

#include <cstdint>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/io/storage.h"

namespace millrace {

struct PublishedCheckpoint {
  std::string name;    // epoch_3-0a1b2c3d.pth
  std::string sha256;  // 64 hex digits: what sha256sum says of the file
  std::uint64_t bytes = 0;
  std::vector<std::string> removed_keys;  // top-level keys that are not in the new file
  std::vector<std::string> missing_keys;  // asked for, but not in the source
};

// I/O thread, blocking. Reads `name` once and writes once; reading, hashing and writing overlap, on
// two threads more that end before this returns, with four blocks of the storage (8 MiB each) in
// memory whatever the file's size. Only storages that the kept keys use are read, and their CRC-32
// is checked; a file without checksums (a legacy one) is copied as it is.
//
// Throws CheckpointError for a file that cannot be read, is no mapping, or has none of the keys
// (the nearest one is named); StorageError as the storage does; Error when `stop` was requested
// before the new file had its name. In every case nothing is left behind.
PublishedCheckpoint publish_checkpoint(Storage& storage, std::string_view name,
                                       std::span<const std::string> published_keys,
                                       const std::stop_token& stop = {});

}  // namespace millrace
