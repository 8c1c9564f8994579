#include "tests/support/alloc_counter.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

thread_local std::uint64_t thread_count = 0;
std::atomic<std::uint64_t> process_count{0};

void* counted(std::size_t size, std::size_t alignment) noexcept {
  ++thread_count;
  process_count.fetch_add(1, std::memory_order_relaxed);
  if (size == 0) size = 1;
  if (alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__) return std::malloc(size);
  void* memory = nullptr;
  return posix_memalign(&memory, alignment, size) == 0 ? memory : nullptr;
}

void* counted_or_throw(std::size_t size, std::size_t alignment) {
  if (void* memory = counted(size, alignment)) return memory;
  throw std::bad_alloc();
}

}  // namespace

namespace millrace::test {

std::uint64_t thread_allocations() noexcept { return thread_count; }
std::uint64_t process_allocations() noexcept {
  return process_count.load(std::memory_order_relaxed);
}

}  // namespace millrace::test

using Align = std::align_val_t;

void* operator new(std::size_t n) { return counted_or_throw(n, 1); }
void* operator new[](std::size_t n) { return counted_or_throw(n, 1); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return counted(n, 1); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return counted(n, 1); }
void* operator new(std::size_t n, Align a) { return counted_or_throw(n, std::size_t(a)); }
void* operator new[](std::size_t n, Align a) { return counted_or_throw(n, std::size_t(a)); }

// Asio takes coroutine frames and handlers from here when its cache of them is empty.
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  return counted(size, alignment);
}

void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p, Align) noexcept { std::free(p); }
void operator delete[](void* p, Align) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, Align) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, Align) noexcept { std::free(p); }
