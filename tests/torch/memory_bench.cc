// Peak memory of a run that saves, above that of the same run without, against its state.
//
//   memory_bench [raw.json]
//
// Every run is a process of its own, this program started anew: VmHWM is the peak of a whole
// process. Runs take turns; a second one without saves is the noise floor.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "millrace/events/stage_events.h"
#include "millrace/io/local_storage.h"
#include "millrace/io/pth_reader.h"
#include "millrace/runtime/async/train_context.h"
#include "millrace/runtime/engine/checkpointer.h"
#include "millrace/runtime/engine/run_context.h"
#include "millrace/runtime/engine/runner.h"
#include "tests/bench/results.h"
#include "tests/support/temp_dir.h"
#include "tests/torch/support/linear_stack.h"

namespace millrace {
namespace {

constexpr std::int64_t kSteps = 12, kInterval = 3;
const std::vector<std::string> kModes = {"none", "again", "lazy", "eager", "blocking", "budget"};

class SavingHook final : public Hook {
 public:
  explicit SavingHook(StageMode mode) : mode_(mode) {}
  std::string_view name() const override { return "SavingHook"; }
  void attach(RunContext& run) override {
    run_ = &run;
    store_ = &run.checkpointer.open_store(std::filesystem::path());
  }
  void subscribe(Subscriptions& on) override {
    on.awaited<AfterTrainIter>(&SavingHook::step_done, this);
  }

 private:
  Task<> step_done(const AfterTrainIter& event) {
    if ((event.at.iter + 1) % kInterval != 0) co_return;
    SaveRequest request;
    request.filename = "saved.pth";
    request.reason = "bench";
    request.mode = mode_;
    request.iter = event.at.iter + 1;
    request.store = store_;
    co_await run_->checkpointer.save(std::move(request));
  }

  const StageMode mode_;
  RunContext* run_ = nullptr;
  CheckpointStore* store_ = nullptr;
};

double peak_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;
  }
  throw std::runtime_error("no VmHWM");
}

// The size of the file, which is that of the state and a few KiB.
double verified_mib(const std::filesystem::path& file) {
  const LocalStorage storage(file.parent_path());
  const auto reader = PthReader::open(storage.open(file.filename().string()));
  if (!reader || !reader.value().verify()) throw std::runtime_error("the file does not verify");
  return static_cast<double>(std::filesystem::file_size(file)) / (1 << 20);
}

// A child: prints its peak, then the size of what it saved.
void train(const std::string& mode, int mib) {
  const test::TempDir folder;
  Parts parts = test::linear_stack_parts(mib, {.threads = 1}, 16);
  const bool saves = mode != "none" && mode != "again";
  const bool bounded = mode == "budget";
  if (saves) {
    parts.hooks.add(
        std::make_unique<SavingHook>(bounded ? StageMode::kLazy : parse_stage_mode(mode)));
  }
  RunOptions options;
  options.work_dir = folder.path();
  options.max_iters = kSteps;
  options.seed = 1;
  options.log_console = false;
  if (bounded) options.checkpoint_memory_budget = (static_cast<std::uint64_t>(mib) << 20) / 4;
  Runner runner(std::move(options), std::move(parts));
  TrainContext().run(runner.train());
  const double peak = peak_mib();
  std::printf("%.3f %.3f\n", peak, saves ? verified_mib(folder.path() / "saved.pth") : 0.0);
}

struct Reading {
  double peak = 0, state = 0;
};

Reading start_child(const std::string& program, const std::string& mode, int mib) {
  const std::string command = "'" + program + "' child " + mode + " " + std::to_string(mib);
  std::FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("cannot start " + command);
  Reading reading;
  const int read = std::fscanf(pipe, "%lf %lf", &reading.peak, &reading.state);
  if (::pclose(pipe) != 0 || read != 2) throw std::runtime_error(command + " failed");
  return reading;
}

void measure(const std::string& program, int mib, int rounds, bench::Results& results) {
  std::map<std::string, std::vector<double>> extra;
  for (int round = 0; round < rounds; ++round) {
    std::map<std::string, Reading> found;
    for (std::size_t turn = 0; turn < kModes.size(); ++turn) {
      const auto& mode = kModes[(turn + static_cast<std::size_t>(round)) % kModes.size()];
      found[mode] = start_child(program, mode, mib);
    }
    const double state = found["lazy"].state;
    for (const auto& [mode, reading] : found) {
      extra[mode].push_back((reading.peak - found["none"].peak) / state);
      std::ostringstream text;
      text << "{\"mode\": \"" << mode << "\", \"state_mib\": " << state
           << ", \"peak_mib\": " << reading.peak << "}";
      results.sample(text.str());
    }
  }
  for (const std::string mode : {"lazy", "eager", "blocking", "budget"}) {
    const auto value = bench::spread(extra[mode]);
    const bool bounded = mode == "budget";
    std::printf("| %d | %s | %.3f (%.3f to %.3f) |\n", mib, mode.c_str(), value.median, value.low,
                value.high);
    results.add({.item = "11",
                 .what = "peak extra memory",
                 .contender = bounded ? "Millrace, budget of a quarter" : "Millrace " + mode,
                 .setting = std::to_string(mib) + " MiB",
                 .value = value,
                 .base = "the state",
                 .noise = bench::spread(extra["again"]),
                 .goal = bounded ? 0.25 : 1.05});
  }
  std::fflush(stdout);
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  using namespace millrace;
  try {
    if (argc == 4 && std::strcmp(argv[1], "child") == 0) {
      train(argv[2], std::atoi(argv[3]));
      return 0;
    }
    bench::Results results;
    std::printf(
        "| MiB | saves | peak extra memory / state: median (min to max) |\n|---|---|---|\n");
    // Without a budget a peak varies by a thousandth: two rounds of the large state, which takes
    // minutes, will do.
    if (bench::quick()) {
      measure(argv[0], 72, 2, results);
    } else {
      measure(argv[0], 256, 3, results);
      measure(argv[0], 1024, 2, results);
    }
    results.write(argc > 1 ? argv[1] : nullptr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "memory_bench: %s\n", error.what());
    return 1;
  }
}
