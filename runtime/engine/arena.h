// The arena: one reused, page-aligned block of memory laid out as the checkpoint file.
//
// Reserved before training and touched page by page then, because first touches cost ten times a
// copy. The tail of the file (pickle, record, directory) is written behind the storages, into
// address space that is reserved but costs nothing until used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace millrace {

class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Makes at least `storages` bytes resident and `storages + tail` addressable. Keeps the block
  // when it is large enough; otherwise the old contents are lost. Throws Error when memory is
  // refused.
  void reserve(std::uint64_t storages, std::uint64_t tail);
  std::span<std::byte> bytes() const noexcept { return bytes_; }
  std::uint64_t resident() const noexcept { return resident_; }

 private:
  void release() noexcept;

  std::span<std::byte> bytes_;
  std::uint64_t resident_ = 0;
};

}  // namespace millrace
