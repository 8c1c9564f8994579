// What a benchmark leaves behind: rows for the one table, and every measurement it took.
//
// The file is {"quick": false, "revision": "1a2b3c", "rows": [...], "samples": [...]}; report.py
// reads the rows of all benchmarks, harness.py writes the same from Python. The revision is that of
// $MILLRACE_REVISION. A row compares a contender with a base in one interleaved run; `noise` is the
// same base against itself. Used by one thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace millrace::bench {

struct Spread {
  double median = 0, low = 0, high = 0;
};
Spread spread(std::vector<double> values);  // of nothing: zeros

struct ResultRow {
  std::string item;  // the section of the table: report.py, SECTIONS
  std::string what, contender, setting;
  Spread value;
  std::string base;
  std::optional<Spread> noise = {};
  std::optional<double> goal = {};
  bool at_least = false;       // the goal is a lower bound, not an upper one
  std::string unit = "ratio";  // of value, noise and goal; "ms", "ns", "us" are no ratios
};

class Results {
 public:
  void add(ResultRow row) { rows_.push_back(std::move(row)); }
  // A JSON object, as text.
  void sample(std::string object) { samples_.push_back(std::move(object)); }
  // Throws when the file cannot be written. Null: writes nothing.
  void write(const char* path) const;

 private:
  std::vector<ResultRow> rows_;
  std::vector<std::string> samples_;
};

// BENCH_QUICK=1: small sizes and few repetitions, to see that everything works.
bool quick();

}  // namespace millrace::bench
