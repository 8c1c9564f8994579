// Storage: where checkpoints live, as named objects. Implementations: LocalStorage (a directory),
// MemoryStorage (tests, and a host that wants bytes). Every one passes tests/io/storage_suite.h.
//
// All calls block and are made on I/O threads; implementations are safe for concurrent calls on
// different names. Names are plain file names without a slash. Failures throw StorageError.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

// The bytes of one object while it is being written. A save whose state is still being copied
// blocks in wait() until the requested part is staged.
class FileImage {
 public:
  virtual ~FileImage() = default;
  virtual std::uint64_t size() const = 0;  // known before any byte is
  // Bytes [first, last) of the file, valid until the next call. Blocks until they are staged.
  virtual std::span<const std::byte> wait(std::uint64_t first, std::uint64_t last) = 0;
};

// An image over bytes that are there already. Does not own them.
class BytesImage final : public FileImage {
 public:
  explicit BytesImage(std::span<const std::byte> bytes) : bytes_(bytes) {}
  explicit BytesImage(std::string_view text) : bytes_(std::as_bytes(std::span(text))) {}
  std::uint64_t size() const override { return bytes_.size(); }
  std::span<const std::byte> wait(std::uint64_t first, std::uint64_t last) override {
    return bytes_.subspan(first, last - first);
  }

 private:
  std::span<const std::byte> bytes_;
};

// Random access to a committed object. Reads from several threads are allowed.
class StoredObject {
 public:
  virtual ~StoredObject() = default;
  virtual std::uint64_t size() const = 0;
  // Fills `out` from `offset`; throws StorageError when the object ends before.
  virtual void read(std::uint64_t offset, std::span<std::byte> out) const = 0;
};

struct CommitTimes {
  std::chrono::steady_clock::time_point started, written, synced, durable;
};

struct ObjectInfo {
  std::string name;
  std::uint64_t size = 0;
  std::int64_t modified_ns = 0;  // since the Unix epoch; orders files that carry no generation
};

class Storage {
 public:
  virtual ~Storage() = default;

  // For messages: the directory, or "memory:".
  virtual std::string location() const = 0;

  // Creates what is needed and proves that objects can be written; removes what a crash left behind
  // (temporary and trash names). Called before each training, on its own. Returns the names
  // removed.
  virtual std::vector<std::string> prepare() = 0;

  // Writes the object and returns once it is durable under `name`. Until then the old object of
  // that name, if any, is intact; there is no instant at which `name` is partly written.
  virtual CommitTimes commit(std::string_view name, FileImage& image) = 0;

  // Opens a committed object. A missing one is a StorageError with ENOENT.
  virtual std::unique_ptr<StoredObject> open(std::string_view name) const = 0;

  // Committed objects only, sorted by name: never a temporary or a trash name.
  virtual std::vector<ObjectInfo> list() const = 0;

  // Removes an object: gone from list() at once and durably, its bytes freed before the call
  // returns. A missing object is not an error.
  virtual void retire(std::string_view name) = 0;
};

}  // namespace millrace
