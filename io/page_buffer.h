// PageBuffer: memory that O_DIRECT takes, aligned to a page, which grows and is reused. One owner,
// one thread at a time.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <span>

namespace millrace {

class PageBuffer {
 public:
  static constexpr std::size_t kPage = 4096;

  // The first `size` bytes. What they hold is kept unless they had to be allocated.
  std::span<std::byte> take(std::size_t size) {
    if (size > size_) {
      pages_.reset();
      size_ = 0;
      pages_.reset(static_cast<std::byte*>(::operator new (size, std::align_val_t{kPage})));
      size_ = size;
    }
    return {pages_.get(), size};
  }

 private:
  struct Free {
    void operator()(std::byte* pages) const { ::operator delete (pages, std::align_val_t{kPage}); }
  };
  std::unique_ptr<std::byte[], Free> pages_;
  std::size_t size_ = 0;
};

}  // namespace millrace
