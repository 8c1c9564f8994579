// MemoryStorage: objects in memory, with the semantics of every Storage. For tests, and for a host
// that wants a checkpoint as bytes. "Durable" means: as long as this object lives. All have the
// same location(), so give a run at most one.
//
// Calls may come from any thread. The lock is held only to look up and to swap an object, never
// while an image is being waited for. An opened object keeps its bytes alive, also after this
// storage is gone.
#pragma once

#include <map>
#include <mutex>

#include "millrace/io/storage.h"

namespace millrace {

class MemoryStorage final : public Storage {
 public:
  std::string location() const override { return "memory:"; }
  std::vector<std::string> prepare() override { return {}; }
  CommitTimes commit(std::string_view name, FileImage& image) override;
  NamedCommit commit_named(std::string_view stem, FileImage& image,
                           const FinalName& final_name) override;
  bool link(std::string_view existing, std::string_view name) override;
  // Copies the object, because opened ones keep their bytes: for logs, not for tensors.
  bool append(std::string_view name, std::span<const std::byte> bytes) override;
  std::unique_ptr<StoredObject> open(std::string_view name) const override;
  std::vector<ObjectInfo> list() const override;
  void retire(std::string_view name) override;

 private:
  struct Entry {
    std::shared_ptr<const std::vector<std::byte>> bytes;
    std::int64_t modified_ns = 0;
  };
  std::string path_of(std::string_view name) const;
  void put(std::string_view name, std::shared_ptr<const std::vector<std::byte>> bytes);  // locked

  mutable std::mutex mutex_;
  std::map<std::string, Entry, std::less<>> entries_;
  std::int64_t last_modified_ns_ = 0;  // strictly increasing, also when the clock is not
};

}  // namespace millrace
