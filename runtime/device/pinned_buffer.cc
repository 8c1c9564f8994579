#include "millrace/runtime/device/pinned_buffer.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace millrace {
namespace {

constexpr std::size_t kPage = 4096;

}  // namespace

void PinnedBuffer::Free::operator()(std::byte* memory) const noexcept {
  ::operator delete (memory, std::align_val_t{kPage});
}

bool PinnedBuffer::reserve(std::size_t bytes) {
  bytes = (std::max<std::size_t>(bytes, 1) + kPage - 1) / kPage * kPage;
  if (bytes <= size_) return false;
  pin_.reset();
  size_ = 0;
  memory_.reset();
  memory_.reset(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{kPage})));
  std::memset(memory_.get(), 0, bytes);
  pin_ = device_.pin({memory_.get(), bytes});
  size_ = bytes;
  return true;
}

}  // namespace millrace
