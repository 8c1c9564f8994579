#include "tests/support/object_storage.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "millrace/io/object_name.h"
#include "millrace/runtime/async/error.h"

namespace millrace::test {
namespace {

class OpenedObject final : public StoredObject {
 public:
  OpenedObject(std::string path, std::shared_ptr<const std::vector<std::byte>> bytes)
      : path_(std::move(path)), bytes_(std::move(bytes)) {}
  std::uint64_t size() const override { return bytes_->size(); }
  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    if (offset > bytes_->size() || out.size() > bytes_->size() - offset) {
      throw StorageError("get", path_, 0, "the range is beyond the object");
    }
    std::copy_n(bytes_->begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
  }

 private:
  const std::string path_;
  const std::shared_ptr<const std::vector<std::byte>> bytes_;
};

std::shared_ptr<const std::vector<std::byte>> upload(FileImage& image) {
  const std::uint64_t part_bytes = std::min(std::uint64_t{8} << 20, image.window());
  auto bytes = std::make_shared<std::vector<std::byte>>();
  bytes->reserve(image.size());
  for (std::uint64_t first = 0; first < image.size(); first += part_bytes) {
    const auto part = image.wait(first, std::min(image.size(), first + part_bytes));
    bytes->insert(bytes->end(), part.begin(), part.end());
  }
  return bytes;
}

std::string shown(std::string_view name) {
  std::string text(name);
  if (is_leftover_name(name)) text.replace(text.rfind('.') - 16, 16, "*");
  return text;
}

CommitTimes start() {
  CommitTimes times;
  times.started = std::chrono::steady_clock::now();
  return times;
}

}  // namespace

std::vector<std::string> ObjectStorage::prepare() {
  std::vector<std::string> swept;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, object] : objects_) {
      if (is_leftover_name(name)) swept.push_back(name);
    }
  }
  for (const std::string& name : swept) remove(name);
  return swept;
}

CommitTimes ObjectStorage::commit(std::string_view name, FileImage& image) {
  check_object_name("commit", name);
  CommitTimes times = start();
  const Bytes bytes = upload(image);
  times.written = times.synced = std::chrono::steady_clock::now();
  put(name, bytes);
  times.durable = std::chrono::steady_clock::now();
  return times;
}

Storage::NamedCommit ObjectStorage::commit_named(std::string_view stem, FileImage& image,
                                                 const FinalName& final_name) {
  check_object_name("commit", stem);
  NamedCommit done{{}, start()};
  const std::string hidden = temp_name(stem);
  const Bytes bytes = upload(image);
  put(hidden, bytes);
  done.times.written = done.times.synced = std::chrono::steady_clock::now();
  try {
    done.name = final_name();
    check_object_name("commit", done.name);
    server_copy_ ? copy(hidden, done.name) : stream(hidden, done.name);
  } catch (...) {
    remove(hidden);
    throw;
  }
  done.times.durable = std::chrono::steady_clock::now();
  remove(hidden);
  return done;
}

std::unique_ptr<StoredObject> ObjectStorage::open(std::string_view name) const {
  check_object_name("open", name);
  const std::lock_guard lock(mutex_);
  request("get", name);
  const auto found = objects_.find(name);
  const std::string path = location() + "/" + std::string(name);
  if (found == objects_.end()) throw StorageError("get", path, ENOENT);
  return std::make_unique<OpenedObject>(path, found->second.bytes);
}

std::vector<ObjectInfo> ObjectStorage::list() const {
  const std::lock_guard lock(mutex_);
  request("list", {});
  std::vector<ObjectInfo> listed;
  for (const auto& [name, object] : objects_) {
    if (is_hidden_name(name)) continue;
    listed.push_back({name, object.bytes->size(), object.modified_ns});
  }
  return listed;
}

void ObjectStorage::retire(std::string_view name) {
  check_object_name("retire", name);
  remove(name);
}

std::vector<std::string> ObjectStorage::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

std::uint64_t ObjectStorage::bytes_put() const {
  const std::lock_guard lock(mutex_);
  return bytes_put_;
}

void ObjectStorage::forget_requests() {
  const std::lock_guard lock(mutex_);
  requests_.clear();
  bytes_put_ = 0;
}

void ObjectStorage::fail_next(std::string verb) {
  const std::lock_guard lock(mutex_);
  failing_ = std::move(verb);
}

void ObjectStorage::request(const std::string& verb, std::string_view name,
                            const std::string& rest) const {
  requests_.push_back(verb + (name.empty() ? "" : " " + shown(name)) + rest);
  if (failing_ != verb) return;
  failing_.clear();
  throw StorageError(verb, location() + "/" + std::string(name), EIO);
}

void ObjectStorage::put(std::string_view name, Bytes bytes) {
  const std::lock_guard lock(mutex_);
  request("put", name, " " + std::to_string(bytes->size()));
  bytes_put_ += bytes->size();
  const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::system_clock::now().time_since_epoch());
  last_modified_ns_ = std::max<std::int64_t>(last_modified_ns_ + 1, now.count());
  objects_.insert_or_assign(std::string(name), Object{std::move(bytes), last_modified_ns_});
}

void ObjectStorage::copy(std::string_view from, std::string_view to) {
  const std::lock_guard lock(mutex_);
  request("copy", from, " " + shown(to));
  Object twin = objects_.at(std::string(from));
  objects_.insert_or_assign(std::string(to), std::move(twin));
}

void ObjectStorage::stream(std::string_view from, std::string_view to) {
  Bytes bytes;
  {
    const std::lock_guard lock(mutex_);
    request("get", from);
    bytes = objects_.at(std::string(from)).bytes;
  }
  put(to, bytes);
}

void ObjectStorage::remove(std::string_view name) {
  const std::lock_guard lock(mutex_);
  request("delete", name);
  const auto found = objects_.find(name);
  if (found != objects_.end()) objects_.erase(found);
}

}  // namespace millrace::test
