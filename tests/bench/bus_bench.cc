// What a publish costs against calling the same hooks in a plain loop.
//
// All ways run in one process, inside one coroutine on an io_context (so that Asio recycles
// frames), and take turns: each repetition measures every row once, in an order that rotates.
// Printed are minimum and median of the repetitions, the ratio of the minima to the virtual loop
// with the same number of hooks, and allocations per publish. The row "virtual loop (again)" is the
// noise floor: the same code, measured as if it were another. Times of one machine compare with
// nothing but each other.
//
//   bus_bench [raw.json] [repetitions]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>

#include "millrace/events/event_bus.h"
#include "tests/bench/bus_peers.h"
#include "tests/bench/bus_subscribers.h"
#include "tests/bench/results.h"
#include "tests/support/alloc_counter.h"
#include "tests/support/run_task.h"

namespace millrace::bench {
namespace {

constexpr int kPublishes = 20000;  // of one measurement
constexpr const char* kOurs = "publish, inline, Publisher";

struct Row {
  std::string name;
  int hooks;
  std::function<Task<>(std::int64_t n)> run;  // publishes n times
  std::vector<double> ns;
  double allocations = 0;

  double minimum() const { return *std::min_element(ns.begin(), ns.end()); }
  double median() const {
    std::vector<double> sorted = ns;
    std::nth_element(sorted.begin(), sorted.begin() + sorted.size() / 2, sorted.end());
    return sorted[sorted.size() / 2];
  }
};

Task<> run_virtual(const std::vector<std::unique_ptr<VirtualHook>>& hooks, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const Step step{i};
    escape(step);
    for (const auto& hook : hooks) hook->on_step(step);
  }
  co_return;
}

Task<> run_functions(const std::vector<std::function<void(const Step&)>>& hooks, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const Step step{i};
    escape(step);
    for (const auto& hook : hooks) hook(step);
  }
  co_return;
}

Task<> run_pointers(const std::vector<PointerHook>& hooks, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const Step step{i};
    escape(step);
    for (const PointerHook& hook : hooks) hook.call(hook.self, step);
  }
  co_return;
}

Task<> run_peer(PeerSignal& signal, std::int64_t n) {
  signal.emit(n);
  co_return;
}

Task<> run_publisher(EventBus& bus, std::int64_t n) {
  const Publisher<Step> steps = bus.channel<Step>();
  for (std::int64_t i = 0; i < n; ++i) {
    const Step step{i};
    escape(step);
    co_await steps.publish(step);
  }
}

Task<> run_bus(EventBus& bus, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const Step step{i};
    escape(step);
    co_await bus.publish(step);
  }
}

struct BusUnderTest {
  BusUnderTest(int inline_count, int awaited_count)
      : held(subscribe(bus, inline_count, awaited_count)) {}
  EventBus bus;
  std::vector<Subscription> held;
};

// Everything the rows refer to lives until the program ends.
std::vector<Row> make_rows(int hooks) {
  auto& virtuals = *new auto(virtual_hooks(hooks));
  auto& functions = *new auto(function_hooks(hooks));
  auto& pointers = *new auto(pointer_hooks(hooks));
  auto& boost = *boost_signal(hooks).release();
  auto& boost_unlocked = *boost_signal_unlocked(hooks).release();
  auto& sigc = *sigc_signal(hooks).release();
  auto& inlined = *new BusUnderTest(hooks, 0);
  auto& one_awaited = *new BusUnderTest(hooks - 1, 1);
  auto& awaited = *new BusUnderTest(0, hooks);
  std::vector<Row> rows;
  auto add = [&rows, hooks](std::string name, std::function<Task<>(std::int64_t)> run) {
    rows.push_back({std::move(name), hooks, std::move(run), {}});
  };
  add("virtual loop", [&](std::int64_t n) { return run_virtual(virtuals, n); });
  add("virtual loop (again)", [&](std::int64_t n) { return run_virtual(virtuals, n); });
  add("function pointers", [&](std::int64_t n) { return run_pointers(pointers, n); });
  add("std::function vector", [&](std::int64_t n) { return run_functions(functions, n); });
  add("Boost.Signals2", [&](std::int64_t n) { return run_peer(boost, n); });
  add("Boost.Signals2, no mutex", [&](std::int64_t n) { return run_peer(boost_unlocked, n); });
  add("libsigc++", [&](std::int64_t n) { return run_peer(sigc, n); });
  add(kOurs, [&](std::int64_t n) { return run_publisher(inlined.bus, n); });
  add("publish, inline, EventBus", [&](std::int64_t n) { return run_bus(inlined.bus, n); });
  add("publish, one awaited", [&](std::int64_t n) { return run_publisher(one_awaited.bus, n); });
  add("publish, all awaited", [&](std::int64_t n) { return run_publisher(awaited.bus, n); });
  return rows;
}

Task<> measure(Row& row) {
  const test::AllocationCount count;
  const auto start = std::chrono::steady_clock::now();
  co_await row.run(kPublishes);
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
  row.ns.push_back(took.count() / kPublishes);
  row.allocations = static_cast<double>(count.so_far()) / kPublishes;
}

Task<> measure_all(std::vector<Row>& rows, int repetitions) {
  for (Row& row : rows) co_await row.run(kPublishes / 10);  // warm-up: caches and Asio's recycler
  for (int r = 0; r < repetitions; ++r) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      co_await measure(rows[(i + static_cast<std::size_t>(r)) % rows.size()]);
    }
  }
}

void print(const std::vector<Row>& rows) {
  std::printf("%-28s %5s %10s %10s %8s %12s\n", "", "hooks", "min ns", "median ns", "ratio",
              "alloc/publish");
  double base = 1;
  for (const Row& row : rows) {
    if (row.name == "virtual loop") base = row.minimum();
    // The measurement itself owns one frame; it shows as 1/publishes.
    std::printf("%-28s %5d %10.2f %10.2f %8.2f %12.4f\n", row.name.c_str(), row.hooks,
                row.minimum(), row.median(), row.minimum() / base, row.allocations);
  }
}

// Millrace's way of publishing against every other way with as many hooks, pair by pair.
bench::Results results_of(const std::vector<Row>& rows) {
  bench::Results results;
  const auto is_ours = [](const Row& row) { return row.name == kOurs; };
  const auto against = [](const Row& row, const Row& base) {
    std::vector<double> ratios;
    for (std::size_t r = 0; r < row.ns.size(); ++r) ratios.push_back(row.ns[r] / base.ns[r]);
    return spread(ratios);
  };
  for (auto row = rows.begin(); row != rows.end();) {
    const auto last = std::find_if(row, rows.end(),
                                   [hooks = row->hooks](const Row& r) { return r.hooks != hooks; });
    const Row& ours = *std::find_if(row, last, is_ours);
    for (auto base = row; base != last; ++base) {
      if (is_ours(*base) || base->name.ends_with("(again)")) continue;
      results.add({.item = "12",
                   .what = "one publish",
                   .contender = "Millrace, inline",
                   .setting = std::to_string(row->hooks) + " hooks",
                   .value = against(ours, *base),
                   .base = base->name,
                   .noise = against(row[1], row[0])});
    }
    row = last;
  }
  for (const Row& row : rows) {
    std::ostringstream text;
    text << R"({"name": ")" << row.name << R"(", "hooks": )" << row.hooks << R"(, "allocations": )"
         << row.allocations << R"(, "ns": [)";
    for (std::size_t j = 0; j < row.ns.size(); ++j) text << (j > 0 ? ", " : "") << row.ns[j];
    results.sample(text.str() + "]}");
  }
  return results;
}

}  // namespace

int main_of_bus_bench(int argc, char** argv) {
  const int repetitions = argc > 2 ? std::max(33, std::atoi(argv[2])) : quick() ? 9 : 99;
  std::vector<Row> rows;
  for (int hooks : {1, 4, 16}) {
    for (Row& row : make_rows(hooks)) rows.push_back(std::move(row));
  }
  std::printf("g++ %s, %d repetitions of %d publishes\n", __VERSION__, repetitions, kPublishes);
  test::run_task(measure_all(rows, repetitions));
  print(rows);
  results_of(rows).write(argc > 1 ? argv[1] : nullptr);
  return 0;
}

}  // namespace millrace::bench

int main(int argc, char** argv) { return millrace::bench::main_of_bus_bench(argc, argv); }
