// What this process holds of its machine, and whether that grows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace millrace::test {

// False under a sanitizer, whose shadow and quarantine grow by themselves: memory then counts as 0.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kMeasuresMemory = false;
#else
inline constexpr bool kMeasuresMemory = true;
#endif

struct ProcessUsage {
  std::uint64_t resident = 0;  // bytes: VmRSS
  std::uint64_t heap = 0;      // bytes that malloc has given out
  std::size_t descriptors = 0;
  std::size_t threads = 0;  // not those that exit
};

ProcessUsage process_usage();

// Growth that is nobody's leak: what the allocator keeps, the longer of two numbers; a file and its
// directory where a save may be under way.
struct Allowance {
  std::uint64_t resident = std::uint64_t{2} << 20;
  std::uint64_t heap = std::uint64_t{64} << 10;
  std::size_t descriptors = 0;
};
inline constexpr Allowance kDuringSaves{.descriptors = 2};

// What the last tenth of the samples (at least one) has beyond the tenth behind the warm-up, which
// is the first third; empty when all is flat. The least of each tenth counts.
std::string growth(const std::vector<ProcessUsage>& samples, Allowance allowance = {});

// "resident 21.3 MiB, heap 1204 KiB, 11 descriptors, 4 threads"
std::string usage_text(const ProcessUsage& usage);

}  // namespace millrace::test
