// What the engine costs per train iteration, without the step itself: loop, events, inbox yield,
// the default hooks, and their log line every ten iterations (to a file).
//
// The step does nothing and a batch is two numbers. Every repetition measures each row once, in an
// order that rotates; printed are minimum and median, the ratio of the minima to the bare loop, and
// allocations per iteration. The row measured twice is the noise floor.
//
//   engine_bench [raw.json] [repetitions]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "millrace/hooks/default_hooks.h"
#include "millrace/runtime/engine/run.h"
#include "tests/bench/results.h"
#include "tests/support/alloc_counter.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::int64_t kIterations = 20'000;
constexpr std::int64_t kWarmUp = 2'000;

class NoLoss final : public ScalarSource {
 public:
  std::optional<double> try_read(std::uint32_t) const override { return 0.5; }
};

// Takes the time and the allocation count between two of its own calls, far from start and end.
class NoStep final : public Strategy {
 public:
  struct Reading {
    double ns = 0;
    double allocations = 0;
  };
  explicit NoStep(Reading& out) : out_(out) {}

  void prepare(std::uint64_t, StateGate&) override {}
  StepOutput forward_backward(const Batch&) override {
    if (calls_ == kWarmUp) {
      started_ = Clock::now();
      allocations_ = test::thread_allocations();
    }
    if (++calls_ == kIterations) {
      const double spent =
          std::chrono::duration<double, std::nano>(Clock::now() - started_).count();
      const auto steps = static_cast<double>(kIterations - kWarmUp - 1);
      out_ = {spent / steps,
              static_cast<double>(test::thread_allocations() - allocations_) / steps};
    }
    return {{&scalar_, 1}, true};
  }
  void optimizer_step() override {}
  void predict(const Batch&) override {}
  TensorView scores() override { return {}; }
  std::span<double> learning_rates() override { return {&rate_, 1}; }
  CapturedState capture(bool) override {
    CapturedState state;
    state.state_dict = pickle::Value::ordered_dict();
    state.optimizer = pickle::Value::dict();
    return state;
  }
  std::string save_rng() const override { return {}; }
  void load_rng(std::string_view) override {}
  LoadReport load_model(const CheckpointFile&, const LoadOptions&) override { return {}; }
  void load_optimizer(const CheckpointFile&) override {}
  bool uses_every_core() const override { return false; }

 private:
  Reading& out_;
  std::int64_t calls_ = 0;
  std::uint64_t allocations_ = 0;
  Clock::time_point started_;
  NoLoss loss_;
  Scalar scalar_{"loss", &loss_, 0};
  double rate_ = 0.1;
};

std::shared_ptr<const Dataset> numbers() {
  const std::vector<float> inputs(kIterations);
  const std::vector<std::int64_t> labels(kIterations);
  std::vector<InMemoryDataset::Column> columns;
  columns.push_back(InMemoryDataset::column<float>(DType::kFloat32, {}, inputs));
  columns.push_back(InMemoryDataset::column<std::int64_t>(DType::kInt64, {}, labels));
  return std::make_shared<InMemoryDataset>(std::move(columns));
}

NoStep::Reading run_engine(const std::shared_ptr<const Dataset>& data, HookList hooks) {
  NoStep::Reading reading;
  const test::TempDir dir;
  RunOptions options;
  options.work_dir = dir.path();
  options.max_epochs = 1;
  options.log_console = false;
  Parts parts;
  parts.strategy = std::make_unique<NoStep>(reading);
  parts.train = loader(data);
  parts.hooks = std::move(hooks);
  Runner runner(std::move(options), std::move(parts));
  run_or_throw(runner, {.handle_signals = false});
  return reading;
}

NoStep::Reading run_bare(const std::shared_ptr<const Dataset>& data) {
  NoStep::Reading reading;
  NoStep step(reading);
  DataLoader batches(data, {});
  while (const Batch* batch = batches.next()) {
    if (step.forward_backward(*batch).step_due) step.optimizer_step();
  }
  return reading;
}

HookList saving_by_iteration() {
  DefaultHookOptions options;
  options.checkpoint = {.interval = 1'000'000'000, .by_epoch = false};
  return default_hooks(std::move(options));
}

HookList without(const char* name) {
  HookList hooks = default_hooks();
  hooks.remove(name);
  return hooks;
}

struct Row {
  std::string name;
  std::function<NoStep::Reading()> run;
  std::vector<double> ns;
  double allocations = 0;
};

bench::Results results_of(const std::vector<Row>& rows) {
  bench::Results results;
  const auto added = [&](std::size_t row) {
    std::vector<double> ns;
    for (std::size_t r = 0; r < rows[row].ns.size(); ++r) {
      ns.push_back(rows[row].ns[r] - rows[0].ns[r]);
    }
    return bench::spread(ns);
  };
  const bench::Spread noise = added(1);
  for (std::size_t row = 2; row < rows.size(); ++row) {
    results.add({.item = "12",
                 .what = "time added to an iteration",
                 .contender = "Millrace, " + rows[row].name,
                 .setting = "a step that does nothing",
                 .value = added(row),
                 .base = "a bare loop over the loader",
                 .noise = noise,
                 .unit = "ns"});
  }
  for (const Row& row : rows) {
    std::ostringstream text;
    text << R"({"name": ")" << row.name << R"(", "allocations": )" << row.allocations
         << R"(, "ns": [)";
    for (std::size_t i = 0; i < row.ns.size(); ++i) text << (i > 0 ? ", " : "") << row.ns[i];
    results.sample(text.str() + "]}");
  }
  return results;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  using namespace millrace;
  const int repetitions = argc > 2 ? std::atoi(argv[2]) : bench::quick() ? 5 : 33;
  const auto data = numbers();
  std::vector<Row> rows = {
      {"bare loop", [&] { return run_bare(data); }, {}, 0},
      {"bare loop (again)", [&] { return run_bare(data); }, {}, 0},
      {"engine, no hooks", [&] { return run_engine(data, HookList()); }, {}, 0},
      {"default hooks", [&] { return run_engine(data, default_hooks()); }, {}, 0},
      {"checkpoints by iteration", [&] { return run_engine(data, saving_by_iteration()); }, {}, 0},
      {"without LoggerHook", [&] { return run_engine(data, without("LoggerHook")); }, {}, 0},
      {"without IterTimerHook", [&] { return run_engine(data, without("IterTimerHook")); }, {}, 0},
  };
  for (int r = 0; r < repetitions; ++r) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      Row& row = rows[(i + static_cast<std::size_t>(r)) % rows.size()];
      const auto reading = row.run();
      row.ns.push_back(reading.ns);
      row.allocations = reading.allocations;
    }
  }
  results_of(rows).write(argc > 1 ? argv[1] : nullptr);
  std::printf("%-24s %10s %10s %10s %12s\n", "per train iteration", "min ns", "median ns", "x bare",
              "allocations");
  const double base = *std::min_element(rows[0].ns.begin(), rows[0].ns.end());
  for (Row& row : rows) {
    std::sort(row.ns.begin(), row.ns.end());
    std::printf("%-24s %10.1f %10.1f %10.2f %12.2f\n", row.name.c_str(), row.ns.front(),
                row.ns[row.ns.size() / 2], row.ns.front() / base, row.allocations);
  }
}
