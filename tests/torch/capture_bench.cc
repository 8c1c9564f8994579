// What a capture costs per tensor: handles and version counters of a model with AdamW, its trees
// made already. Four captured tensors per parameter: weight, moments, count.
//
// Every repetition measures each row once, in an order that rotates. "cold" reads other memory
// before each capture, as a training step would; "first" includes making the trees.
//
//   capture_bench [raw.json] [repetitions]
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "millrace/runtime/torch/state_capture.h"
#include "tests/bench/results.h"
#include "tests/support/alloc_counter.h"
#include "tests/torch/support/named_tensors.h"
#include "tests/torch/support/small_nets.h"

namespace millrace {
namespace {

using Clock = std::chrono::steady_clock;

double ns_since(Clock::time_point start) {
  return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
}

struct Row {
  Row(std::string row_name, const ModelFunctions& net)
      : name(std::move(row_name)),
        model(net),
        optimizer(adamw()(test::parameters_of(model))),
        states(model, *optimizer),
        tensors(static_cast<double>(4 * optimizer->parameters().size())) {
    states.capture(true);
  }
  void measure_warm() {
    const auto start = Clock::now();
    const test::AllocationCount count;
    const CapturedState state = states.capture(true);
    warm.push_back(ns_since(start) / tensors);
    allocations = count.so_far();
  }
  void measure_cold(std::vector<char>& other) {
    for (std::size_t i = 0; i < other.size(); i += 64) ++other[i];
    const auto start = Clock::now();
    const CapturedState state = states.capture(true);
    cold.push_back(ns_since(start) / tensors);
  }
  void measure_first() {
    StateCapture fresh(model, *optimizer);
    const auto start = Clock::now();
    const CapturedState state = fresh.capture(true);
    first.push_back(ns_since(start) / tensors);
  }

  std::string name;
  Model model;
  std::unique_ptr<Optimizer> optimizer;
  StateCapture states;
  double tensors;
  std::vector<double> warm, cold, first;
  std::uint64_t allocations = 0;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

bench::Results results_of(const std::vector<std::unique_ptr<Row>>& rows) {
  bench::Results results;
  results.add({.item = "capture",
               .what = "capture, per tensor, caches cold",
               .contender = "Millrace",
               .setting = rows[2]->name,
               .value = bench::spread(rows[2]->cold),
               .base = "nothing",
               .goal = 1000,
               .unit = "ns"});
  for (const auto& row : rows) {
    std::ostringstream out;
    const auto list = [&](const char* key, const std::vector<double>& values) {
      out << ", \"" << key << "\": [";
      for (std::size_t i = 0; i < values.size(); ++i) out << (i > 0 ? ", " : "") << values[i];
      out << "]";
    };
    out << R"({"name": ")" << row->name << R"(", "tensors": )" << row->tensors
        << R"(, "allocations": )" << row->allocations;
    list("warm_ns", row->warm);
    list("cold_ns", row->cold);
    list("first_ns", row->first);
    results.sample(out.str() + "}");
  }
  return results;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  using namespace millrace;
  const int repetitions = argc > 2 ? std::atoi(argv[2]) : bench::quick() ? 9 : 51;
  std::vector<std::unique_ptr<Row>> rows;
  const auto add = [&](const char* name, const ModelFunctions& net) {
    rows.push_back(std::make_unique<Row>(name, net));
  };
  add("100 tensors", test::many_tensors(25));
  add("1,000 tensors", test::many_tensors(250));
  add("10,000 tensors", test::many_tensors(2'500));
  add("10,000 tensors (again)", test::many_tensors(2'500));
  add("10,000 in 1,250 modules", test::many_modules(1'250));
  add("100,000 tensors", test::many_tensors(25'000));
  std::vector<char> other(64 << 20);
  for (int r = 0; r < repetitions; ++r) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      Row& row = *rows[(i + static_cast<std::size_t>(r)) % rows.size()];
      row.measure_warm();
      row.measure_cold(other);
      if (r % 8 == 0) row.measure_first();
    }
  }
  std::printf("| capture of | ns per tensor | caches cold | first | allocations |\n");
  std::printf("|---|---|---|---|---|\n");
  for (const auto& row : rows) {
    std::printf("| %s | %.0f | %.0f | %.0f | %llu |\n", row->name.c_str(), median(row->warm),
                median(row->cold), median(row->first),
                static_cast<unsigned long long>(row->allocations));
  }
  const double goal = median(rows[2]->cold);
  std::printf("\nGoal: 10,000 tensors at most 1,000 ns each, caches cold: %.0f, %s. ", goal,
              goal <= 1000 ? "met" : "missed");
  std::printf("100,000 / 1,000 tensors, per tensor, warm: %.2f; the same row twice: %.2f\n",
              median(rows[5]->warm) / median(rows[1]->warm),
              median(rows[3]->warm) / median(rows[2]->warm));
  results_of(rows).write(argc > 1 ? argv[1] : nullptr);
}
