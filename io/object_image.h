// ObjectImage: the bytes of a committed object as an image, to be written elsewhere. What a storage
// without links does in place of one.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "millrace/io/page_buffer.h"
#include "millrace/io/storage.h"

namespace millrace {

// Reads each block when it is asked for, so it holds one block of the storage it is written to. One
// thread.
class ObjectImage final : public FileImage {
 public:
  // Borrows the object.
  explicit ObjectImage(const StoredObject& object) : object_(object) {}
  std::uint64_t size() const override { return object_.size(); }
  std::span<const std::byte> wait(std::uint64_t first, std::uint64_t last) override {
    const std::span<std::byte> block = buffer_.take(last - first);
    object_.read(first, block);
    return block;
  }

 private:
  const StoredObject& object_;
  PageBuffer buffer_;
};

// Commits the bytes of `name` in `from` as `new_name` in `to`, which may be the same storage. A
// missing object is a StorageError with ENOENT; after any failure `new_name` is as it was.
CommitTimes copy_object(const Storage& from, std::string_view name, Storage& to,
                        std::string_view new_name);

}  // namespace millrace
