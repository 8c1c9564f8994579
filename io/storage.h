// Storage: where checkpoints live, as named objects. Implementations: LocalStorage (a directory),
// MemoryStorage (tests, and a host that wants bytes). Every one passes tests/io/storage_suite.h.
//
// All calls block and are made on I/O threads; implementations are safe for concurrent calls on
// different names. Names are plain file names without a slash. Failures throw StorageError.
//
// Storages that cannot rename, link or append (object stores). A put is atomic under its final
// name, so commit is one put. commit_named puts under a hidden name, has the store copy that to the
// final name (or streams it there, where it cannot), then deletes the hidden one; prepare() deletes
// the hidden names a crash left. link returns false, and the caller streams the bytes over
// (copy_object). append returns false, and the caller commits the whole object anew. retire is
// delete. tests/support/object_storage.h is a storage with exactly these limits.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
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
  // Whether bytes can be asked for again and in any order. An image that streams through a small
  // buffer cannot: it is asked once, front to back.
  virtual bool rereadable() const { return true; }
  // The most bytes that one wait() may ask for: any number, or a multiple of 4096.
  virtual std::uint64_t window() const { return UINT64_MAX; }
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

  // The same for an object whose name depends on its bytes (a digest): `final_name` is asked once,
  // after the last byte of the image was taken and before anything has that name. What it throws
  // ends the commit, and nothing is left of it. `stem` is an object name too, for the temporary
  // one.
  using FinalName = std::function<std::string()>;
  struct NamedCommit {
    std::string name;
    CommitTimes times;
  };
  // By default a StorageError with ENOTSUP: such a storage takes checkpoints and cannot publish.
  virtual NamedCommit commit_named(std::string_view stem, FileImage& image,
                                   const FinalName& final_name);

  // Gives a committed object a second name that shares its bytes, replacing what had that name;
  // durable on return. Until then `name` has its old object or the new one, whole. False where the
  // storage has no such thing, or refuses it for this object: then nothing was done, and the caller
  // copies. A missing object is a StorageError with ENOENT. The names part again when either is
  // committed, linked or retired.
  virtual bool link(std::string_view existing, std::string_view name);

  // Adds bytes to the end of an object, creating it; durable on return. False where the storage
  // cannot append: then nothing was done, and the caller commits the whole object anew. A crash or
  // an error in the middle may leave any part of `bytes`, so whoever appends after an error must
  // read first, or commit anew. Not for an object that was linked: its twin may grow with it, or
  // not.
  virtual bool append(std::string_view name, std::span<const std::byte> bytes);

  // Opens a committed object. A missing one is a StorageError with ENOENT.
  virtual std::unique_ptr<StoredObject> open(std::string_view name) const = 0;

  // Committed objects only, sorted by name: never a temporary or a trash name.
  virtual std::vector<ObjectInfo> list() const = 0;

  // Removes an object: gone from list() at once and durably, its bytes freed before the call
  // returns. A missing object is not an error.
  virtual void retire(std::string_view name) = 0;
};

}  // namespace millrace
