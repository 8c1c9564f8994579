// Storage: where checkpoints live, as named objects. Implementations: LocalStorage (a directory),
// MemoryStorage (tests, and a host that wants bytes). Every one passes tests/io/storage_suite.h.
//
// All calls block and are made on I/O threads; implementations are safe for concurrent calls on
// different names. A name is an object's name as io/object_name.h has it: 1 to 200 bytes, no slash,
// no NUL, no leading dot. Every call that takes one begins with check_object_name(), which refuses
// any other with EINVAL; names with a leading dot are the storage's own, for what is being written
// or removed. Failures throw StorageError.
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
//
// What a storage keeps to, so that it can write every image:
//
//   - it asks from one thread, for every byte once, front to back
//   - in blocks of one size, a multiple of 4096 and at most window(); only the last one is shorter
//   - it is done with a block when it asks for the next one
//   - it holds no lock in wait() that another call needs: wait() may block for long
//   - what wait() throws ends the commit and passes through, and nothing is left of the object
//
// Some images would allow more. PthImage of a state that streams (runtime/staging/pth_image.h)
// throws std::logic_error for bytes that do not begin where the last ones ended, or are more than
// window(); DigestImage (publishing, digest_image.h) for any block but the next one of the size
// that was asked for first, of which it holds four in memory.
class FileImage {
 public:
  virtual ~FileImage() = default;
  virtual std::uint64_t size() const = 0;  // known before any byte is
  // Bytes [first, last) of the file, exactly so many, valid until the next call. Blocks until they
  // are there.
  virtual std::span<const std::byte> wait(std::uint64_t first, std::uint64_t last) = 0;
  // For who made the image: false when its bytes cannot be asked for again, to write the file once
  // more. A storage keeps to the rules above whatever this says.
  virtual bool rereadable() const { return true; }
  // The largest range that one wait() may ask for: unlimited, or a multiple of 4096.
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

  // The directory, or "memory:". A file is called `<location>/<name>` in messages, in
  // last_checkpoint and in the entries of checkpoints that name other files. It also identifies the
  // storage: it never changes, is the same in a later run that is to find these files, and differs
  // from that of every other storage of the run. Hooks tell by it whether an event is about one of
  // their files, and resume whether last_checkpoint names a file of a storage that it has searched.
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
