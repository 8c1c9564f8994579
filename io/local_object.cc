#include "millrace/io/local_object.h"

#include <cerrno>
#include <utility>

#include "millrace/runtime/async/error.h"

namespace millrace {

LocalObject::LocalObject(std::shared_ptr<FileOps> ops, std::string path)
    : ops_(std::move(ops)), path_(std::move(path)) {
  fd_ = retry_interrupted([this] { return ops_->open_read(path_); });
  if (fd_ < 0) throw StorageError("open", path_, -fd_);
  FileStatus status;
  const int found = ops_->fstat(fd_, status);
  if (found == 0 && status.regular) {
    size_ = status.size;
    return;
  }
  ops_->close(fd_);  // no destructor runs for an object that was never made
  if (found < 0) throw StorageError("fstat", path_, -found);
  throw StorageError("open", path_, EINVAL, "it is not a regular file");
}

LocalObject::~LocalObject() { ops_->close(fd_); }

void LocalObject::read(std::uint64_t offset, std::span<std::byte> out) const {
  if (offset > size_ || out.size() > size_ - offset) {
    throw StorageError("pread", path_, 0,
                       "the object ends before byte " + std::to_string(offset + out.size()));
  }
  while (!out.empty()) {
    const auto count = retry_interrupted([&] { return ops_->pread(fd_, out, offset); });
    if (count < 0) throw StorageError("pread", path_, static_cast<int>(-count));
    if (count == 0) {
      throw StorageError("pread", path_, 0,
                         "the object ends before byte " + std::to_string(offset + out.size()));
    }
    out = out.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
}

}  // namespace millrace
