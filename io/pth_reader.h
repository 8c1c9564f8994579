// Reads .pth files: ours, Python's torch.save (zip, and the legacy format of torch before 1.6), and
// MMEngine's. Nothing in a file is executed; every size, offset, count and depth is checked before
// it is believed. Blocking; use it on an I/O thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/io/pickle_value.h"
#include "millrace/io/storage.h"
#include "millrace/runtime/async/error.h"

namespace millrace {

struct PthLimits {
  std::uint64_t max_pickle_bytes = std::uint64_t{1} << 30;
  std::size_t max_entries = 1'000'000;
  std::size_t max_values = 50'000'000;  // nodes of the tree
  std::size_t max_depth = 1'000;
};

struct PthContents;  // internal

class PthReader {
 public:
  // Reads the directory and the pickle (CRC checked). The object is kept open by the reader.
  static Result<PthReader> open(std::shared_ptr<const StoredObject> object, PthLimits limits = {});

  // The whole tree. Tensors are leaves that as_tensor() understands.
  const pickle::Value& root() const;

  // Bytes of the storage entry data/<key>, or nothing when there is none.
  std::optional<std::uint64_t> storage_size(std::string_view key) const;
  std::vector<std::string> storage_keys() const;
  // Reads a whole storage into `out` (exactly storage_size bytes) and checks its CRC-32.
  Result<std::monostate> read_storage(std::string_view key, std::span<std::byte> out) const;
  // The same without holding it whole: fills what `room` gives for the next bytes, at least one and
  // at most `size`. Returns the CRC-32 of the storage, which is known to be right when this is no
  // fault; in a file without checksums (legacy ones) there was nothing to hold it against. `room`
  // may throw to end it.
  using Room = std::function<std::span<std::byte>(std::size_t size)>;
  Result<std::uint32_t> stream_storage(std::string_view key, const Room& room) const;
  // Offset of a storage's data in the file, for tests and tools; 0 when compressed.
  std::uint64_t storage_offset(std::string_view key) const;

  // A small entry below the root, e.g. "millrace/state" (CRC checked); no value when absent.
  Result<std::optional<std::vector<std::byte>>> entry(std::string_view name) const;

  // Checks the CRC of every entry, and that every tensor of the tree lies inside its storage.
  Result<std::monostate> verify() const;
  // The same in the same single pass, and every storage read into what `room` gives for it: as many
  // bytes as it is told, which stay there until the call returns.
  using StorageRoom = std::function<std::span<std::byte>(const std::string& key, std::size_t size)>;
  Result<std::monostate> read_all(const StorageRoom& room) const;

 private:
  explicit PthReader(std::shared_ptr<const PthContents> contents);
  std::shared_ptr<const PthContents> contents_;  // shared so that the reader stays copyable
};

}  // namespace millrace
