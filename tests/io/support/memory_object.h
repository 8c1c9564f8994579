// A StoredObject over bytes in memory, for tests of readers.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "millrace/io/storage.h"
#include "millrace/runtime/async/error.h"

namespace millrace::test {

class MemoryObject final : public StoredObject {
 public:
  explicit MemoryObject(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}

  std::uint64_t size() const override { return bytes_.size(); }
  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    if (offset > bytes_.size() || out.size() > bytes_.size() - offset) {
      throw StorageError("read", "memory object", EIO, "past the end");
    }
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
  }

 private:
  std::vector<std::byte> bytes_;
};

inline std::shared_ptr<const StoredObject> in_memory(std::vector<std::byte> bytes) {
  return std::make_shared<MemoryObject>(std::move(bytes));
}

}  // namespace millrace::test
