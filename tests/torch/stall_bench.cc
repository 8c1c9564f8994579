// What a checkpoint takes from training: paired step times with a save minus without.
//
//   stall_bench [raw.json] [sizes in MiB, default 64,256] [rounds, default 7]
//
// One process, one interleaved run per row group: windows of one settling step, the save (or
// nothing), and the two steps that follow, up to the end of the second; the drain of the write
// comes after the window and is reported apart. A save's stall is its window minus the mean of the
// empty windows beside it. "empty" windows between empty ones are the noise floor. The base is a
// blocking torch::save of the same tensors, then fsync of the file and of its folder: the same
// durability. Every file is verified; one that does not verify fails the program.
#include <fcntl.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <sstream>

#include "millrace/events/checkpoint_events.h"
#include "millrace/io/local_storage.h"
#include "millrace/io/pth_reader.h"
#include "millrace/runtime/async/train_context.h"
#include "millrace/runtime/engine/checkpointer.h"
#include "millrace/runtime/engine/run_context.h"
#include "millrace/runtime/engine/runner.h"
#include "tests/bench/results.h"
#include "tests/torch/support/linear_stack.h"

namespace millrace {
namespace {

using SteadyClock = std::chrono::steady_clock;
const std::vector<std::string> kActions = {"lazy",       "eager",           "blocking",
                                           "torch_save", "torch_save_sync", "empty"};

double ms(std::chrono::nanoseconds time) { return static_cast<double>(time.count()) / 1e6; }

struct Sample {
  double stall = 0, call = 0, gate = 0, drain = 0;
};

struct Setting {
  int mib = 64;
  int threads = 1;
  std::int64_t batch = 1;
  int rounds = 7;
};

void fsync_path(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags);
  if (fd < 0 || ::fsync(fd) != 0) throw std::runtime_error("fsync " + path);
  ::close(fd);
}

class StallHook final : public Hook {
 public:
  explicit StallHook(const Setting& setting) : setting_(setting) {}
  std::string_view name() const override { return "StallHook"; }
  void attach(RunContext& run) override {
    run_ = &run;
    store_ = &run.checkpointer.open_store(std::filesystem::path());
  }
  void subscribe(Subscriptions& on) override {
    on.awaited<AfterTrainIter>(&StallHook::step_done, this);
    on.every<CheckpointCommitted>([this](const CheckpointCommitted& e) { row_ = e.row; });
  }

  // window w: even ones are empty, odd ones act in turn
  std::map<std::string, std::vector<Sample>> samples;
  std::vector<double> step_times;

 private:
  std::string action_of(std::int64_t window) const {
    if (window % 2 == 0) return "";
    return kActions[static_cast<std::size_t>(window / 2) % kActions.size()];
  }

  Task<> step_done(const AfterTrainIter& event) {
    const std::int64_t window = event.at.iter / 3, place = event.at.iter % 3;
    const auto now = SteadyClock::now();
    if (place == 0) {
      const std::string action = action_of(window);
      started_ = now;
      row_ = {};
      if (action.starts_with("torch")) {
        save_with_torch(action == "torch_save_sync");
        call_ = SteadyClock::now() - started_;
      } else if (!action.empty() && action != "empty") {
        SaveRequest request;
        request.filename = action + ".pth";
        request.reason = "bench";
        request.mode = parse_stage_mode(action);
        request.epoch = 0;
        request.iter = event.at.iter + 1;
        request.store = store_;
        co_await run_->checkpointer.save(std::move(request));
        call_ = SteadyClock::now() - started_;
      } else {
        call_ = {};
      }
    }
    if (place != 2) co_return;
    windows_.push_back(ms(now - started_));
    calls_.push_back(ms(call_));
    const auto drain = SteadyClock::now();
    co_await run_->checkpointer.drain();
    drains_.push_back(ms(SteadyClock::now() - drain));
    gates_.push_back(ms(row_.stall_gate));
    // A window is judged when the empty one after it is over.
    if (window < 2 || window % 2 != 0 || window < 4) co_return;  // the first pair settles
    const auto w = static_cast<std::size_t>(window - 1);
    Sample sample;
    sample.stall = windows_[w] - (windows_[w - 1] + windows_[w + 1]) / 2;
    sample.call = calls_[w];
    sample.gate = gates_[w];
    sample.drain = drains_[w];
    samples[action_of(window - 1)].push_back(sample);
    step_times.push_back(windows_[w + 1] / 2);
  }

  void save_with_torch(bool sync) {
    const CapturedState state = run_->strategy.capture(true);
    std::vector<torch::Tensor> tensors;
    for (const CapturedStorage& storage : state.storages) {
      tensors.push_back(torch::from_blob(const_cast<std::byte*>(storage.bytes.data()),
                                         {static_cast<std::int64_t>(storage.bytes.size())},
                                         torch::kUInt8));
    }
    const std::string path = store_->location() + "/peer.pt";
    torch::save(tensors, path);
    if (!sync) return;
    fsync_path(path, O_RDONLY);
    fsync_path(store_->location(), O_RDONLY | O_DIRECTORY);
  }

  const Setting setting_;
  RunContext* run_ = nullptr;
  CheckpointStore* store_ = nullptr;
  SteadyClock::time_point started_;
  SteadyClock::duration call_{};
  CheckpointRow row_;
  std::vector<double> windows_, calls_, gates_, drains_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

void verify(const std::filesystem::path& folder) {
  const LocalStorage storage(folder);
  for (const char* mode : {"lazy.pth", "eager.pth", "blocking.pth"}) {
    const auto reader = PthReader::open(storage.open(mode));
    if (!reader || !reader.value().verify()) {
      std::fprintf(stderr, "stall_bench: %s does not verify\n", mode);
      std::exit(1);
    }
  }
}

std::string row_text(const Setting& setting, const std::string& action,
                     const std::vector<Sample>& samples, double base, double step) {
  std::vector<double> stalls, calls, gates, drains;
  for (const Sample& sample : samples) {
    stalls.push_back(sample.stall);
    calls.push_back(sample.call);
    gates.push_back(sample.gate);
    drains.push_back(sample.drain);
  }
  const double stall = median(stalls);
  char ratio[32] = "noise";
  if (action != "empty") std::snprintf(ratio, sizeof ratio, "1/%.1f", base / stall);
  char line[320];
  std::snprintf(line, sizeof line,
                "| %d | %d | %lld | %.1f | %s | %.2f (%.2f to %.2f) | %s | %.2f | %.2f | %.0f |",
                setting.mib, setting.threads, static_cast<long long>(setting.batch), step,
                action.c_str(), stall, *std::min_element(stalls.begin(), stalls.end()),
                *std::max_element(stalls.begin(), stalls.end()), ratio, median(calls),
                median(gates), median(drains));
  return line;
}

bench::ResultRow row_of(const Setting& setting, const std::string& action,
                        const std::vector<Sample>& samples, double base,
                        const std::vector<Sample>& empty) {
  const auto against_base = [base](const std::vector<Sample>& of) {
    std::vector<double> ratios;
    for (const Sample& sample : of) ratios.push_back(sample.stall / base);
    return bench::spread(ratios);
  };
  bench::ResultRow row{
      .item = "9",
      .what = "stall",
      .contender = action == "torch_save" ? "C++ torch::save" : "Millrace " + action,
      .setting = std::to_string(setting.mib) + " MiB, " + std::to_string(setting.threads) +
                 " compute threads, batch " + std::to_string(setting.batch),
      .value = against_base(samples),
      .base = "C++ torch::save + fsync",
      .noise = against_base(empty)};
  if (action == "lazy") row.goal = 0.01;
  if (action == "eager") row.goal = 1.0 / 6;
  return row;
}

void measure(const Setting& setting, bench::Results& results) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("millrace-stall-" + std::to_string(::getpid()));
  const auto windows = static_cast<std::int64_t>(2 * kActions.size()) * setting.rounds + 5;
  Parts parts = test::linear_stack_parts(setting.mib, {.threads = setting.threads}, setting.batch);
  auto hook = std::make_unique<StallHook>(setting);
  StallHook& stall = *hook;
  parts.hooks.add(std::move(hook));
  RunOptions options;
  options.work_dir = folder;
  options.max_iters = 3 * windows;
  options.seed = 1;
  options.log_console = false;
  Runner runner(std::move(options), std::move(parts));
  TrainContext().run(runner.train());

  std::vector<double> bases;
  for (const Sample& sample : stall.samples["torch_save_sync"]) bases.push_back(sample.stall);
  const double base = median(bases), step = median(stall.step_times);
  for (const std::string& action : kActions) {
    const auto& found = stall.samples[action];
    if (found.empty()) continue;
    std::printf("%s\n", row_text(setting, action, found, base, step).c_str());
    for (const Sample& sample : found) {
      std::ostringstream text;
      text << "{\"mib\":" << setting.mib << ",\"threads\":" << setting.threads
           << ",\"batch\":" << setting.batch << ",\"action\":\"" << action
           << "\",\"stall_ms\":" << sample.stall << ",\"call_ms\":" << sample.call
           << ",\"gate_ms\":" << sample.gate << ",\"drain_ms\":" << sample.drain << "}";
      results.sample(text.str());
    }
    if (action != "torch_save_sync" && action != "empty") {
      results.add(row_of(setting, action, found, base, stall.samples["empty"]));
    }
  }
  std::fflush(stdout);
  verify(folder);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  using millrace::bench::quick;
  std::vector<int> sizes = {64, 256};
  if (quick()) sizes = {24};
  if (argc > 2) {
    sizes.clear();
    std::stringstream text(argv[2]);
    for (std::string item; std::getline(text, item, ',');) sizes.push_back(std::stoi(item));
  }
  millrace::bench::Results results;
  std::printf(
      "| MiB | threads | batch | step ms | save | stall ms: median (min to max) | of torch::save + "
      "fsync | in call ms | at gate ms | drain ms |\n|---|---|---|---|---|---|---|---|---|---|\n");
  for (const int mib : sizes) {
    for (const int threads : {1, 2}) {
      for (const std::int64_t batch : {1, 64}) {
        millrace::Setting setting;
        setting.mib = mib;
        setting.threads = threads;
        setting.batch = batch;
        setting.rounds = argc > 3 ? std::stoi(argv[3]) : quick() ? 2 : 7;
        millrace::measure(setting, results);
      }
    }
  }
  results.write(argc > 1 ? argv[1] : nullptr);
}
