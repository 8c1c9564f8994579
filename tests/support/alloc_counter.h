// Counts heap allocations. Linking alloc_counter.cc into a test or a benchmark replaces the global
// operator new of that program, its aligned and nothrow forms too, and aligned_alloc.
#pragma once

#include <cstdint>

namespace millrace::test {

// Allocations so far, by the calling thread and by all threads.
std::uint64_t thread_allocations() noexcept;
std::uint64_t process_allocations() noexcept;

// The allocations of the calling thread since it was made.
class AllocationCount {
 public:
  AllocationCount() noexcept : start_(thread_allocations()) {}
  std::uint64_t so_far() const noexcept { return thread_allocations() - start_; }

 private:
  std::uint64_t start_;
};

}  // namespace millrace::test
