// ObjectStorage: a fake of an object store, with exactly the limits that io/storage.h states: a put
// is atomic under its final name, and nothing can be renamed, linked or appended to.
//
// Keeps the bytes in memory, and a record of every request that such a store would see.
// Thread-safe; a test may make requests fail.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "millrace/io/storage.h"

namespace millrace::test {

class ObjectStorage final : public Storage {
 public:
  // Without `server_copy` the store cannot copy either, and a commit by name streams its bytes back
  // and forth.
  explicit ObjectStorage(bool server_copy = true) : server_copy_(server_copy) {}

  std::string location() const override { return "object:"; }
  std::vector<std::string> prepare() override;
  CommitTimes commit(std::string_view name, FileImage& image) override;
  NamedCommit commit_named(std::string_view stem, FileImage& image,
                           const FinalName& final_name) override;
  std::unique_ptr<StoredObject> open(std::string_view name) const override;
  std::vector<ObjectInfo> list() const override;
  void retire(std::string_view name) override;

  // "put a 5", "copy .a.*.tmp a", "delete a", "get a", "list": random digits as *.
  std::vector<std::string> requests() const;
  std::uint64_t bytes_put() const;
  void forget_requests();
  // The next request of this kind, in the words above, is a StorageError with EIO and does nothing.
  void fail_next(std::string verb);

 private:
  struct Object {
    std::shared_ptr<const std::vector<std::byte>> bytes;
    std::int64_t modified_ns = 0;
  };
  using Bytes = std::shared_ptr<const std::vector<std::byte>>;
  // Records the request, and throws when it is to fail.
  void request(const std::string& verb, std::string_view name, const std::string& rest = {}) const;
  void put(std::string_view name, Bytes bytes);
  void copy(std::string_view from, std::string_view to);
  void stream(std::string_view from, std::string_view to);
  void remove(std::string_view name);

  const bool server_copy_;
  mutable std::mutex mutex_;
  std::map<std::string, Object, std::less<>> objects_;
  std::int64_t last_modified_ns_ = 0;
  mutable std::vector<std::string> requests_;
  mutable std::string failing_;
  std::uint64_t bytes_put_ = 0;
};

}  // namespace millrace::test
