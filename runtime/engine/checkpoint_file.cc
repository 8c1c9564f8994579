#include "millrace/runtime/engine/checkpoint_file.h"

#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "millrace/io/local_storage.h"
#include "millrace/io/pth_reader.h"
#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

template <class T>
T expect(const std::string& path, Result<T> result) {
  if (!result) throw CheckpointError(path, result.fault().text());
  return std::move(result).value();
}

}  // namespace

CheckpointFile CheckpointFile::read(const Storage& storage, std::string_view name) {
  CheckpointFile file;
  file.path_ = storage.location() + "/" + std::string(name);
  std::shared_ptr<const StoredObject> object = storage.open(name);
  const PthReader reader = expect(file.path_, PthReader::open(std::move(object)));
  file.root_ = reader.root();
  expect(file.path_, reader.read_all([&file](const std::string& key, std::size_t size) {
    Bytes bytes{std::make_unique_for_overwrite<std::byte[]>(size), size};
    return file.storages_.insert_or_assign(key, std::move(bytes)).first->second.all();
  }));
  const auto record = expect(file.path_, reader.entry("millrace/state"));
  if (record) file.record_ = expect(file.path_, decode_state_record(*record));
  return file;
}

CheckpointFile CheckpointFile::read_path(const std::string& path) {
  const std::filesystem::path full = std::filesystem::absolute(path);
  std::error_code ignored;  // a path that nothing can have names no file either
  if (!std::filesystem::is_regular_file(full, ignored)) {
    throw CheckpointError(path, std::filesystem::is_directory(full, ignored)
                                    ? "is a directory; name the .pth file in it"
                                    : "can not be found");
  }
  const LocalStorage storage(full.parent_path());
  return read(storage, full.filename().string());
}

const pickle::Value& CheckpointFile::state_dict() const {
  const pickle::Value* found = root_.find("state_dict");
  return found != nullptr ? *found : root_;
}

const std::string* CheckpointFile::section(std::string_view name) const {
  if (!record_) return nullptr;
  const auto found = record_->sections.find(std::string(name));
  return found == record_->sections.end() ? nullptr : &found->second;
}

std::span<const std::byte> CheckpointFile::storage(const pickle::TensorRef& tensor) const {
  const auto found = storages_.find(tensor.storage_key);
  if (found == storages_.end()) {
    throw CheckpointError(path_, "a tensor names the storage '" + tensor.storage_key +
                                     "', which the file does not hold");
  }
  const auto needed = static_cast<std::size_t>(tensor.storage_numel) * dtype_size(tensor.dtype);
  if (found->second.size < needed) {
    throw CheckpointError(path_, "storage '" + tensor.storage_key + "' has " +
                                     std::to_string(found->second.size) + " bytes, its tensor " +
                                     "needs " + std::to_string(needed));
  }
  return found->second.all();
}

}  // namespace millrace
