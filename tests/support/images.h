// File images and byte patterns for storage tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "millrace/io/catalog.h"
#include "millrace/io/storage.h"

namespace millrace::test {

// Bytes that differ by seed and position, also across pages.
inline std::vector<std::byte> pattern(std::size_t size, std::uint32_t seed) {
  std::vector<std::byte> bytes(size);
  std::uint32_t state = seed * 2654435761U + 1;
  for (std::byte& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<std::byte>(state >> 24);
  }
  return bytes;
}

inline std::vector<std::byte> read_all(const StoredObject& object) {
  std::vector<std::byte> bytes(object.size());
  object.read(0, bytes);
  return bytes;
}

inline std::vector<std::byte> read_all(const Storage& storage, std::string_view name) {
  return read_all(*storage.open(name));
}

inline std::string read_text(const Storage& storage, std::string_view name) {
  const std::vector<std::byte> bytes = read_all(storage, name);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline std::vector<std::byte> bytes_of_text(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

inline CommitTimes commit_bytes(Storage& storage, std::string_view name,
                                const std::vector<std::byte>& bytes) {
  BytesImage image(bytes);
  return storage.commit(name, image);
}

inline CommitTimes commit_text(Storage& storage, std::string_view name, std::string_view text) {
  BytesImage image(text);
  return storage.commit(name, image);
}

// All objects but the catalog, which is there wherever a checkpoint is.
inline std::vector<std::string> names_of(const Storage& storage) {
  std::vector<std::string> names;
  for (const ObjectInfo& info : storage.list()) {
    if (info.name != Catalog::kName) names.push_back(info.name);
  }
  return names;
}

// Calls `before` ahead of every wait(); it may throw or block.
class HookedImage final : public FileImage {
 public:
  HookedImage(std::vector<std::byte> bytes, std::function<void(std::uint64_t first)> before)
      : bytes_(std::move(bytes)), before_(std::move(before)) {}
  std::uint64_t size() const override { return bytes_.size(); }
  std::span<const std::byte> wait(std::uint64_t first, std::uint64_t last) override {
    before_(first);
    return std::span(bytes_).subspan(first, last - first);
  }

 private:
  std::vector<std::byte> bytes_;
  std::function<void(std::uint64_t)> before_;
};

}  // namespace millrace::test
