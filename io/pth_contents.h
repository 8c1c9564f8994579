// What opening a .pth file found: its tree, and where the bytes of each storage lie. A zip file and
// a legacy one look the same from here, except that a legacy storage has no entry and no checksum.
//
// Internal to PthReader. open_pth() fills it; from then on it is only read, from any thread whose
// StoredObject allows it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "millrace/io/pickle_value.h"
#include "millrace/io/pth_reader.h"
#include "millrace/io/storage.h"
#include "millrace/io/zip_directory.h"
#include "millrace/runtime/async/error.h"

namespace millrace {

struct StoragePlace {
  const ZipEntry* entry = nullptr;  // of `zip`; null in a legacy file
  std::uint64_t offset = 0;         // in the file, of a legacy storage
  std::uint64_t size = 0;           // bytes
};

struct PthContents {
  std::shared_ptr<const StoredObject> object;
  PthLimits limits;
  pickle::Value root;
  std::optional<ZipDirectory> zip;  // none in a legacy file
  std::string prefix;               // "archive/"
  bool ours = false;                // Millrace wrote it
  std::vector<std::string> keys;    // in the order of the file
  std::unordered_map<std::string, StoragePlace> storages;

  // The entry of that name below the prefix, or null.
  const ZipEntry* find(std::string_view name) const;
  const StoragePlace* storage(std::string_view key) const;
  void add_storage(std::string key, StoragePlace place);

  // torch writes zeros when told not to compute checksums; Millrace always computes them.
  bool has_crc(const ZipEntry& entry) const { return ours || entry.crc != 0; }
  // An entry in memory, its CRC checked. Kind::limit when it would be larger than a pickle may be,
  // or expands far more than tensors and pickles do.
  Result<std::vector<std::byte>> read_whole(const ZipEntry& entry) const;

  // What keeps the tree and the storages from fitting together: a storage that is missing, or of
  // another size than the pickle says, or a tensor that does not lie inside its own.
  std::optional<Fault> check_tree() const;

 private:
  std::optional<Fault> check_storage(const pickle::Value& id) const;
};

// Recognizes the format and reads the directory, the pickle and nothing of the storages. A file
// that is something else is Kind::foreign, and the fault says what it looks like.
Result<std::shared_ptr<const PthContents>> open_pth(std::shared_ptr<const StoredObject> object,
                                                    const PthLimits& limits);

}  // namespace millrace
