// What saves that keep the disk busy half of the time add to the training time, against no saves.
//
//   busy_disk_bench [raw.json]
//
// First a step and a save are timed, then saves beside steps, which gives the number of steps
// between two saves. Then windows take turns: none, saves, none, none again ... A window with saves
// ends when the last one is durable; it is judged against the mean of the empty windows beside it,
// and so are the empty ones between empty ones, which are the noise floor. The share of the time in
// which a save was under way is reported as it was. Every file is verified.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "millrace/events/checkpoint_events.h"
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

using SteadyClock = std::chrono::steady_clock;
constexpr int kSettling = 3, kTimed = 6;  // steps before the windows

double seconds(SteadyClock::duration time) { return std::chrono::duration<double>(time).count(); }

struct Setting {
  int mib, threads, rounds, saves;  // saves: of a window
  std::int64_t batch;
};

class BusyDiskHook final : public Hook {
 public:
  explicit BusyDiskHook(const Setting& setting) : setting_(setting) {}
  std::string_view name() const override { return "BusyDiskHook"; }
  void attach(RunContext& run) override {
    run_ = &run;
    store_ = &run.checkpointer.open_store(std::filesystem::path());
  }
  void subscribe(Subscriptions& on) override {
    on.awaited<AfterTrainIter>(&BusyDiskHook::step_done, this);
    on.every<CheckpointCommitted>([this](const CheckpointCommitted& e) {
      save_time_ = seconds(e.row.times.durable - e.row.times.requested);
      busy_ += save_time_;
      ++saved_;
    });
  }

  std::vector<double> ratios, noise, shares;  // one for each window that was judged
  double step = 0;                            // seconds
  std::int64_t interval = 0;                  // steps between two saves

 private:
  enum class Kind { kNone, kSaves, kAgain };
  static Kind kind_of(std::size_t window) {
    if (window % 2 == 0) return Kind::kNone;
    return window % 4 == 1 ? Kind::kSaves : Kind::kAgain;
  }
  Kind kind() const { return adjusting_ > 0 ? Kind::kSaves : kind_of(windows_.size()); }

  Task<> step_done(const AfterTrainIter& event) {
    if (interval == 0) {
      co_await calibrate(event.at.iter);
      co_return;
    }
    ++in_window_;
    if (in_window_ == interval * setting_.saves) {
      co_await end_window();
      if (windows_.size() == static_cast<std::size_t>(4 * setting_.rounds) + 1) {
        run_->request_stop("measured");
        co_return;
      }
      begin_window();
    }
    const bool save_due = in_window_ % interval == 0 && kind() == Kind::kSaves;
    if (save_due) co_await save(event.at.iter);
  }

  Task<> calibrate(std::int64_t iter) {
    if (iter == kSettling) started_ = SteadyClock::now();
    if (iter < kSettling + kTimed) co_return;
    step = seconds(SteadyClock::now() - started_) / kTimed;
    for (int i = 0; i < 2; ++i) {  // the second is like all later ones
      co_await save(iter);
      co_await run_->checkpointer.drain();
    }
    set_interval(save_time_);
    begin_window();
  }
  void set_interval(double save_time) {
    interval = std::max<std::int64_t>(1, std::llround(2 * save_time / step));
  }

  void begin_window() {
    in_window_ = 0;
    busy_ = 0;
    started_ = SteadyClock::now();
  }

  Task<> end_window() {
    co_await run_->checkpointer.drain();
    if (adjusting_ > 0) {
      --adjusting_;
      set_interval(busy_ / setting_.saves);
      co_return;
    }
    windows_.push_back(seconds(SteadyClock::now() - started_));
    const std::size_t last = windows_.size() - 1;
    if (kind_of(last) == Kind::kSaves) shares.push_back(busy_ / windows_[last]);
    if (last < 2 || last % 2 != 0) co_return;
    const double ratio = windows_[last - 1] / ((windows_[last - 2] + windows_[last]) / 2);
    (kind_of(last - 1) == Kind::kSaves ? ratios : noise).push_back(ratio);
  }

  Task<> save(std::int64_t iter) {
    SaveRequest request;
    request.filename = saved_ % 2 == 0 ? "even.pth" : "odd.pth";
    request.reason = "bench";
    request.iter = iter + 1;
    request.store = store_;
    co_await run_->checkpointer.save(std::move(request));
  }

  const Setting setting_;
  RunContext* run_ = nullptr;
  CheckpointStore* store_ = nullptr;
  SteadyClock::time_point started_;
  std::int64_t in_window_ = 0;
  double save_time_ = 0, busy_ = 0;
  int saved_ = 0, adjusting_ = 2;  // windows with saves that are not measured
  std::vector<double> windows_;
};

void verify(const std::filesystem::path& folder) {
  const LocalStorage storage(folder);
  for (const char* file : {"even.pth", "odd.pth"}) {
    const auto reader = PthReader::open(storage.open(file));
    if (!reader || !reader.value().verify()) {
      throw std::runtime_error(std::string(file) + " does not verify");
    }
  }
}

void report(const Setting& setting, const BusyDiskHook& hook, bench::Results& results) {
  const auto value = bench::spread(hook.ratios), noise = bench::spread(hook.noise);
  const double share = bench::spread(hook.shares).median;
  std::printf("| %d | %d | %.0f | %lld | %.2f | %.3f (%.3f to %.3f) | %.3f (%.3f to %.3f) |\n",
              setting.mib, setting.threads, hook.step * 1e3, static_cast<long long>(hook.interval),
              share, value.median, value.low, value.high, noise.median, noise.low, noise.high);
  std::fflush(stdout);
  char text[160];
  std::snprintf(text, sizeof text, "%d MiB every %lld steps, disk busy %.0f%%, %d compute thread%s",
                setting.mib, static_cast<long long>(hook.interval), share * 100, setting.threads,
                setting.threads > 1 ? "s" : "");
  results.add({.item = "11",
               .what = "training time with saves",
               .contender = "Millrace",
               .setting = text,
               .value = value,
               .base = "no saves",
               .noise = noise,
               .goal = setting.threads > 1 ? 1.10 : 1.03});
  for (std::size_t i = 0; i < hook.ratios.size(); ++i) {
    std::ostringstream sample;
    sample << "{\"mib\": " << setting.mib << ", \"threads\": " << setting.threads
           << ", \"step_ms\": " << hook.step * 1e3 << ", \"interval\": " << hook.interval
           << ", \"ratio\": " << hook.ratios[i] << ", \"again\": " << hook.noise[i]
           << ", \"busy_share\": " << hook.shares[i] << "}";
    results.sample(sample.str());
  }
}

void measure(const Setting& setting, bench::Results& results) {
  const test::TempDir folder;
  Parts parts = test::linear_stack_parts(setting.mib, {.threads = setting.threads}, setting.batch);
  auto hook = std::make_unique<BusyDiskHook>(setting);
  const BusyDiskHook& busy = *hook;
  parts.hooks.add(std::move(hook));
  RunOptions options;
  options.work_dir = folder.path();
  options.max_iters = 1'000'000'000;
  options.seed = 1;
  options.log_console = false;
  Runner runner(std::move(options), std::move(parts));
  TrainContext().run(runner.train());
  report(setting, busy, results);
  verify(folder.path());
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  using namespace millrace;
  std::printf(
      "| MiB | threads | step ms | steps a save | disk busy | time with saves / without, goals "
      "1.03 "
      "and 1.10 | none / none |\n|---|---|---|---|---|---|---|\n");
  try {
    bench::Results results;
    for (const int threads : {1, 2}) {
      measure(bench::quick() ? Setting{24, threads, 2, 2, 16} : Setting{256, threads, 9, 4, 64},
              results);
    }
    results.write(argc > 1 ? argv[1] : nullptr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "busy_disk_bench: %s\n", error.what());
    return 1;
  }
}
