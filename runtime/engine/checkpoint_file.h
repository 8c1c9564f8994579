// A checkpoint read into memory and verified: every byte checked before anything is loaded from it.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "millrace/io/pickle_value.h"
#include "millrace/io/state_record.h"
#include "millrace/io/storage.h"

namespace millrace {

class CheckpointFile {
 public:
  // Blocking; I/O thread. `path` is for messages. Throws StorageError when the object cannot be
  // read, CheckpointError when it is truncated, corrupt or no checkpoint.
  static CheckpointFile read(const Storage& storage, std::string_view name);
  // A file anywhere on the local disk, as load_from and resume name it.
  static CheckpointFile read_path(const std::string& path);

  const std::string& path() const noexcept { return path_; }
  const pickle::Value& root() const noexcept { return root_; }
  pickle::Value& root() noexcept { return root_; }
  // The model's weights: root["state_dict"], or the root itself when it is a bare mapping of
  // tensors.
  const pickle::Value& state_dict() const;
  // What only we write; empty for files of other programs.
  const std::optional<StateRecord>& record() const noexcept { return record_; }
  // A section of the record, or null.
  const std::string* section(std::string_view name) const;

  // The bytes of the storage a tensor lives in. Throws CheckpointError when the file has none.
  std::span<const std::byte> storage(const pickle::TensorRef& tensor) const;

 private:
  struct Bytes {  // not zeroed first, as a vector's would be: they are all read
    std::unique_ptr<std::byte[]> data;
    std::size_t size = 0;
    std::span<std::byte> all() const noexcept { return {data.get(), size}; }
  };

  std::string path_;
  pickle::Value root_;
  std::optional<StateRecord> record_;
  std::map<std::string, Bytes, std::less<>> storages_;
};

}  // namespace millrace
