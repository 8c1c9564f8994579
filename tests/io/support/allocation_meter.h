// Measures what a piece of code allocates. Replaces operator new and delete of the whole test
// binary.
#pragma once

#include <cstddef>

namespace millrace::test {

// The most memory that was held at once, above what was held when the meter started.
class AllocationMeter {
 public:
  AllocationMeter();
  std::size_t peak() const;

 private:
  std::size_t start_;
};

}  // namespace millrace::test
