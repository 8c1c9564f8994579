#include "tests/support/stress.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace millrace::test {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::size_t kSlowness = 3;
#else
constexpr std::size_t kSlowness = 1;
#endif

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace

bool stress_is_whole() { return environment("MILLRACE_STRESS") == "1"; }

std::size_t stress_count(std::size_t share, std::size_t whole) {
  if (stress_is_whole()) return whole;
  return std::max<std::size_t>(share / kSlowness, 1);
}

std::uint64_t stress_seed() {
  const std::string text(environment("MILLRACE_SEED"));
  return text.empty() ? 20260229 : std::stoull(text);
}

void stress_report(const std::string& text) {
  std::printf("stress: %s; seed %llu\n", text.c_str(),
              static_cast<unsigned long long>(stress_seed()));
  std::fflush(stdout);
}

}  // namespace millrace::test
