// LocalObject: a file opened for reading. It keeps the bytes and the size it was opened on,
// whatever happens to the name or is appended, and may be read from several threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "millrace/io/file_ops.h"
#include "millrace/io/storage.h"

namespace millrace {

class LocalObject final : public StoredObject {
 public:
  // Throws StorageError: with ENOENT when there is no such file, EINVAL when it is no regular one.
  LocalObject(std::shared_ptr<FileOps> ops, std::string path);
  ~LocalObject() override;
  LocalObject(const LocalObject&) = delete;
  LocalObject& operator=(const LocalObject&) = delete;

  std::uint64_t size() const override { return size_; }
  void read(std::uint64_t offset, std::span<std::byte> out) const override;

 private:
  const std::shared_ptr<FileOps> ops_;
  const std::string path_;
  int fd_ = -1;
  std::uint64_t size_ = 0;
};

}  // namespace millrace
