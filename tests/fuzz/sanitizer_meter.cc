// AllocationMeter by AddressSanitizer's hooks: operator new stays the sanitizer's own, which checks
// that it and delete belong together.
#include <atomic>
#include <cstddef>

#include "tests/io/support/allocation_meter.h"

// Of sanitizer/allocator_interface.h, which GCC has in its library and does not install.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*allocated)(const volatile void*,
                                                                           std::size_t),
                                                         void (*released)(const volatile void*));
extern "C" std::size_t __sanitizer_get_allocated_size(const volatile void* memory);

namespace {

// A target runs on one thread; libFuzzer has others.
// Starts high, since memory of before the hooks is released as well.
std::atomic<std::size_t> held{std::size_t{1} << 40}, highest{0};

void allocated(const volatile void*, std::size_t size) {
  const std::size_t now = held += size;
  std::size_t seen = highest.load();
  while (now > seen && !highest.compare_exchange_weak(seen, now)) {
  }
}

void released(const volatile void* memory) {
  if (memory != nullptr) held -= __sanitizer_get_allocated_size(memory);
}

const int kInstalled = __sanitizer_install_malloc_and_free_hooks(allocated, released);

}  // namespace

namespace millrace::test {

AllocationMeter::AllocationMeter() : start_(held.load()) {
  static_cast<void>(kInstalled);
  highest = start_;
}
std::size_t AllocationMeter::peak() const { return highest.load() - start_; }

}  // namespace millrace::test
