#include "millrace/runtime/async/quantity.h"

#include <cstdio>

namespace millrace {
namespace {

std::string one_decimal(double value, const char* unit) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %s", value, unit);
  return text;
}

}  // namespace

std::string size_text(std::uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes < (1U << 10)) return std::to_string(bytes) + " B";
  if (bytes < (1U << 20)) return one_decimal(value / (1 << 10), "KiB");
  if (bytes < (std::uint64_t{1} << 30)) return one_decimal(value / (1 << 20), "MiB");
  return one_decimal(value / (1 << 30), "GiB");
}

std::string time_text(std::chrono::nanoseconds time) {
  const auto ns = static_cast<double>(time.count());
  if (ns < 1e6) return one_decimal(ns / 1e3, "us");
  if (ns < 1e9) return one_decimal(ns / 1e6, "ms");
  return one_decimal(ns / 1e9, "s");
}

}  // namespace millrace
