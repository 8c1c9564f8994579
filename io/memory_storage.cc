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
  return commit_named(name, image, [name] { return std::string(name); }).times;
}

Storage::NamedCommit MemoryStorage::commit_named(std::string_view stem, FileImage& image,
                                                 const FinalName& final_name) {
  check_object_name("commit", stem);
  NamedCommit done;
  done.times.started = std::chrono::steady_clock::now();
  const std::uint64_t size = image.size();
  auto bytes = std::make_shared<std::vector<std::byte>>();
  bytes->reserve(size);
  const std::uint64_t step = std::min(kBlock, image.window());
  for (std::uint64_t first = 0; first < size; first += step) {
    const auto block = image.wait(first, std::min(size, first + step));
    bytes->insert(bytes->end(), block.begin(), block.end());
  }
  done.times.written = done.times.synced = std::chrono::steady_clock::now();
  done.name = final_name();
  check_object_name("commit", done.name);
  const std::lock_guard lock(mutex_);
  put(done.name, std::move(bytes));
  done.times.durable = std::chrono::steady_clock::now();
  return done;
}

void MemoryStorage::put(std::string_view name,
                        std::shared_ptr<const std::vector<std::byte>> bytes) {
  const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::system_clock::now().time_since_epoch());
  last_modified_ns_ = std::max<std::int64_t>(last_modified_ns_ + 1, now.count());
  entries_.insert_or_assign(std::string(name), Entry{std::move(bytes), last_modified_ns_});
}

bool MemoryStorage::link(std::string_view existing, std::string_view name) {
  check_object_name("link", existing);
  check_object_name("link", name);
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(existing);
  if (found == entries_.end()) throw StorageError("link", path_of(existing), ENOENT);
  entries_.insert_or_assign(std::string(name), Entry(found->second));
  return true;
}

bool MemoryStorage::append(std::string_view name, std::span<const std::byte> bytes) {
  check_object_name("append", name);
  const std::lock_guard lock(mutex_);
  auto grown = std::make_shared<std::vector<std::byte>>();
  if (const auto found = entries_.find(name); found != entries_.end()) {
    grown->reserve(found->second.bytes->size() + bytes.size());
    *grown = *found->second.bytes;
  }
  grown->insert(grown->end(), bytes.begin(), bytes.end());
  put(name, std::move(grown));
  return true;
}

std::string MemoryStorage::path_of(std::string_view name) const {
  return location() + "/" + std::string(name);
}

std::unique_ptr<StoredObject> MemoryStorage::open(std::string_view name) const {
  check_object_name("open", name);
  const std::string path = path_of(name);
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
