#include "tests/support/process_usage.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>

#include "tests/support/live_threads.h"

namespace millrace::test {
namespace {

std::size_t open_descriptors() {
  const auto all = std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  return static_cast<std::size_t>(all) - 1;  // that of the iteration
}

std::uint64_t resident_bytes() {
  std::uint64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

ProcessUsage least(std::span<const ProcessUsage> samples) {
  ProcessUsage least_of_all = samples.front();
  for (const ProcessUsage& sample : samples) {
    least_of_all.resident = std::min(least_of_all.resident, sample.resident);
    least_of_all.heap = std::min(least_of_all.heap, sample.heap);
    least_of_all.descriptors = std::min(least_of_all.descriptors, sample.descriptors);
    least_of_all.threads = std::min(least_of_all.threads, sample.threads);
  }
  return least_of_all;
}

}  // namespace

ProcessUsage process_usage() {
  ProcessUsage usage;
  usage.descriptors = open_descriptors();
  usage.threads = live_threads().size();
  if (!kMeasuresMemory) return usage;
  usage.resident = resident_bytes();
  const struct mallinfo2 heap = ::mallinfo2();
  usage.heap = heap.uordblks + heap.hblkhd;
  return usage;
}

std::string growth(const std::vector<ProcessUsage>& samples, Allowance allowance) {
  if (samples.size() < 4) throw std::invalid_argument("growth: fewer than four samples");
  const std::size_t tenth = std::max<std::size_t>(1, samples.size() / 10);
  const std::span<const ProcessUsage> all(samples);
  const ProcessUsage first = least(all.subspan(samples.size() / 3, tenth));
  const ProcessUsage last = least(all.last(tenth));
  const bool flat = last.resident <= first.resident + allowance.resident &&
                    last.heap <= first.heap + allowance.heap &&
                    last.descriptors <= first.descriptors + allowance.descriptors &&
                    last.threads <= first.threads;
  if (flat) return {};
  return "from " + usage_text(first) + " to " + usage_text(last);
}

std::string usage_text(const ProcessUsage& usage) {
  char text[160];
  std::snprintf(text, sizeof text, "resident %.1f MiB, heap %.0f KiB, %zu descriptors, %zu threads",
                static_cast<double>(usage.resident) / (1 << 20),
                static_cast<double>(usage.heap) / 1024, usage.descriptors, usage.threads);
  return text;
}

}  // namespace millrace::test
