#include "millrace/io/memory_storage.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "millrace/io/object_name.h"
#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

constexpr std::uint64_t kBlock = std::uint64_t{8} << 20;

class MemoryObject final : public StoredObject {
 public:
  MemoryObject(std::string path, std::shared_ptr<const std::vector<std::byte>> bytes)
      : path_(std::move(path)), bytes_(std::move(bytes)) {}

  std::uint64_t size() const override { return bytes_->size(); }

  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    if (offset > bytes_->size() || out.size() > bytes_->size() - offset) {
      throw StorageError("read", path_, 0,
                         "the object ends at byte " + std::to_string(bytes_->size()));
    }
    if (!out.empty()) std::memcpy(out.data(), bytes_->data() + offset, out.size());
  }

 private:
  const std::string path_;
  const std::shared_ptr<const std::vector<std::byte>> bytes_;
};

}  // namespace

CommitTimes MemoryStorage::commit(std::string_view name, FileImage& image) {
  check_object_name("commit", name);
  CommitTimes times;
  times.started = std::chrono::steady_clock::now();
  const std::uint64_t size = image.size();
  auto bytes = std::make_shared<std::vector<std::byte>>();
  bytes->reserve(size);
  for (std::uint64_t first = 0; first < size; first += kBlock) {
    const auto block = image.wait(first, std::min(size, first + kBlock));
    bytes->insert(bytes->end(), block.begin(), block.end());
  }
  times.written = times.synced = std::chrono::steady_clock::now();
  const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::system_clock::now().time_since_epoch());
  const std::lock_guard lock(mutex_);
  last_modified_ns_ = std::max<std::int64_t>(last_modified_ns_ + 1, now.count());
  entries_.insert_or_assign(std::string(name), Entry{std::move(bytes), last_modified_ns_});
  times.durable = std::chrono::steady_clock::now();
  return times;
}

std::unique_ptr<StoredObject> MemoryStorage::open(std::string_view name) const {
  check_object_name("open", name);
  const std::string path = location() + "/" + std::string(name);
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(name);
  if (found == entries_.end()) throw StorageError("open", path, ENOENT);
  return std::make_unique<MemoryObject>(path, found->second.bytes);
}

std::vector<ObjectInfo> MemoryStorage::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<ObjectInfo> objects;
  for (const auto& [name, entry] : entries_) {
    objects.push_back({name, entry.bytes->size(), entry.modified_ns});
  }
  return objects;
}

void MemoryStorage::retire(std::string_view name) {
  check_object_name("retire", name);
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(name);
  if (found != entries_.end()) entries_.erase(found);
}

}  // namespace millrace
