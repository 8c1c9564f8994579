// DirectoryLock: one run at a time writes checkpoints to a directory. A second one would sweep the
// first's temporary files and retire its checkpoints.
//
// An advisory lock on the directory itself (flock), so nothing is left behind, and a killed process
// holds nothing. File systems without such locks are used unlocked.
#pragma once

#include <filesystem>
#include <utility>

namespace millrace {

class DirectoryLock {
 public:
  // Throws StorageError when another run, of this or another process, holds the directory. A
  // directory that cannot be opened is not locked: what uses it next says why.
  explicit DirectoryLock(const std::filesystem::path& directory);
  ~DirectoryLock();
  DirectoryLock(DirectoryLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  DirectoryLock& operator=(DirectoryLock&&) = delete;

  bool held() const noexcept { return fd_ >= 0; }

 private:
  int fd_;
};

}  // namespace millrace
