#include "tests/bench/results.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string_view>

namespace millrace::bench {
namespace {

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string row_json(const ResultRow& row) {
  std::ostringstream out;
  out.precision(9);
  out << "{\"item\": " << quoted(row.item) << ", \"what\": " << quoted(row.what)
      << ", \"contender\": " << quoted(row.contender) << ", \"case\": " << quoted(row.setting)
      << ", \"ratio\": " << row.value.median << ", \"low\": " << row.value.low
      << ", \"high\": " << row.value.high << ", \"base\": " << quoted(row.base);
  out << ", \"noise\": ";
  if (row.noise) {
    out << "[" << row.noise->low << ", " << row.noise->high << "]";
  } else {
    out << "null";
  }
  out << ", \"goal\": ";
  if (row.goal) {
    out << *row.goal;
  } else {
    out << "null";
  }
  out << ", \"at_least\": " << (row.at_least ? "true" : "false")
      << ", \"unit\": " << quoted(row.unit) << "}";
  return out.str();
}

}  // namespace

Spread spread(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

void Results::write(const char* path) const {
  if (path == nullptr) return;
  std::ofstream out(path);
  const char* revision = std::getenv("MILLRACE_REVISION");
  out << "{\"quick\": " << (quick() ? "true" : "false")
      << ", \"revision\": " << quoted(revision != nullptr ? revision : "") << ",\n\"rows\": [";
  const char* separator = "\n ";
  for (const ResultRow& row : rows_) {
    out << separator << row_json(row);
    separator = ",\n ";
  }
  out << "\n],\n\"samples\": [";
  separator = "\n ";
  for (const std::string& sample : samples_) {
    out << separator << sample;
    separator = ",\n ";
  }
  out << "\n]}\n";
  if (!out.flush()) throw std::runtime_error(std::string("cannot write ") + path);
}

bool quick() {
  const char* value = std::getenv("BENCH_QUICK");
  return value != nullptr && std::string_view(value) == "1";
}

}  // namespace millrace::bench
