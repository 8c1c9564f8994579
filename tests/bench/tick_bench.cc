// How late a 1 kHz timer on the train thread is while checkpoints are made, and what the removal of
// a large file takes from that thread. Nothing trains: a busy core would hide what Millrace does.
//
// Turns alternate: quiet, then one checkpoint is saved, published (read, hashed, written), and the
// one before it removed; a quiet turn is as long as the busy one before it. The lag of every tick
// is recorded, also of those that a late wake-up skipped. Quiet against quiet is the noise floor.
// Removal: the call on the train thread, and the largest lag until the file is gone; the base is
// unlink() in place.
//
//   tick_bench [raw.json]
#include <unistd.h>

#include <algorithm>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "millrace/events/checkpoint_events.h"
#include "millrace/io/local_storage.h"
#include "millrace/io/pth_reader.h"
#include "millrace/runtime/async/task_scope.h"
#include "millrace/runtime/async/train_context.h"
#include "millrace/runtime/engine/checkpointer.h"
#include "millrace/runtime/engine/run_context.h"
#include "millrace/runtime/engine/runner.h"
#include "tests/bench/pth_source.h"
#include "tests/bench/results.h"
#include "tests/bench/still_state.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using SteadyClock = std::chrono::steady_clock;
using Milliseconds = std::chrono::duration<double, std::milli>;
constexpr auto kPeriod = std::chrono::milliseconds(1);

double ms_since(SteadyClock::time_point start) {
  return Milliseconds(SteadyClock::now() - start).count();
}

// A timer of its own on the train executor. Its handlers keep it alive; stop() ends them.
class Ticker : public std::enable_shared_from_this<Ticker> {
 public:
  explicit Ticker(const asio::any_io_executor& executor) : timer_(executor) {}

  void start() {
    due_ = SteadyClock::now() + kPeriod;
    wait();
  }
  void stop() {
    stopped_ = true;
    timer_.cancel();
  }
  void record_into(std::vector<double>* lags) { lags_ = lags; }

 private:
  void wait() {
    timer_.expires_at(due_);
    timer_.async_wait([self = shared_from_this()](asio::error_code error) {
      if (!error && !self->stopped_) self->tick();
    });
  }
  void tick() {
    const auto now = SteadyClock::now();
    for (; due_ <= now; due_ += kPeriod) {
      if (lags_ != nullptr) lags_->push_back(Milliseconds(now - due_).count());
    }
    wait();
  }

  asio::steady_timer timer_;
  SteadyClock::time_point due_;
  std::vector<double>* lags_ = nullptr;
  bool stopped_ = false;
};

struct Sizes {
  std::size_t state_mib, removed_mib;
  int rounds, removals;
};

struct Turn {
  std::vector<double> quiet, busy;
  double busy_ms = 0;
};

struct Removal {
  double call_ms = 0, lag_ms = 0, gone_ms = 0, unlink_ms = 0;
};

class TickHook final : public Hook {
 public:
  explicit TickHook(Sizes sizes) : sizes_(sizes) {}
  std::string_view name() const override { return "TickHook"; }
  void attach(RunContext& run) override {
    run_ = &run;
    store_ = &run.checkpointer.open_store(std::filesystem::path());
  }
  void subscribe(Subscriptions& on) override {
    on.awaited<AfterTrainIter>(&TickHook::iterate, this);
    on.every<CheckpointCommitted>([this](const CheckpointCommitted& e) { committed(e.row); });
    on.every<CheckpointPublished>([this](const CheckpointPublished& e) { published(e.row); });
    on.every<CheckpointRemoved>([this](const CheckpointRemoved& e) {
      if (!e.row.error.empty()) throw std::runtime_error(e.row.error);
      --under_way_;
    });
    on.every<CheckpointFailed>(
        [](const CheckpointFailed& e) { throw std::runtime_error(e.row.error); });
  }

  std::vector<Turn> turns;
  std::vector<Removal> removals;

 private:
  // One iteration a millisecond: completions of I/O are published between two.
  Task<> iterate(const AfterTrainIter& event) {
    if (!scope_) {
      const auto executor = co_await asio::this_coro::executor;
      ticker_ = std::make_shared<Ticker>(executor);
      ticker_->start();
      scope_ = std::make_unique<TaskScope>(executor);
      scope_->spawn(measure());
    }
    if (std::exchange(save_wanted_, false)) co_await save(event.at.iter + 1);
    if (done_) {
      ticker_->stop();
      run_->request_stop("measured");
      co_await scope_->join();
    }
    co_await sleep(kPeriod);
  }

  static Task<> sleep(SteadyClock::duration time) {
    asio::steady_timer timer(co_await asio::this_coro::executor, time);
    co_await timer.async_wait(asio::use_awaitable);
  }

  Task<> measure() {
    co_await busy_turn(nullptr);  // settles, and tells how long a quiet turn is
    for (int round = 0; round < sizes_.rounds; ++round) {
      Turn turn;
      ticker_->record_into(&turn.quiet);
      co_await sleep(last_turn_);
      ticker_->record_into(nullptr);
      co_await busy_turn(&turn.busy);
      turns.push_back(std::move(turn));
    }
    for (int i = 0; i < sizes_.removals; ++i) co_await removal();
    done_ = true;
  }

  Task<> busy_turn(std::vector<double>* lags) {
    ticker_->record_into(lags);
    const auto start = SteadyClock::now();
    under_way_ = 2;  // the commit, the publication
    save_wanted_ = true;
    while (under_way_ > 0) co_await sleep(kPeriod);
    last_turn_ = SteadyClock::now() - start;
    ticker_->record_into(nullptr);
  }

  Task<> save(std::int64_t iter) {
    SaveRequest request;
    request.filename = "iter_" + std::to_string(iter) + ".pth";
    request.reason = "bench";
    request.iter = iter;
    request.store = store_;
    co_await run_->checkpointer.save(std::move(request));
  }

  void committed(const CheckpointRow& row) {
    run_->checkpointer.publish(*store_, row.name, {"meta", "state_dict"});
    if (!last_.empty()) remove(last_);
    last_ = row.name;
    --under_way_;
  }
  void published(const PublishedRow& row) {
    if (!row.error.empty()) throw std::runtime_error(row.error);
    remove(row.published_name);
    --under_way_;
  }
  void remove(const std::string& name) {
    ++under_way_;
    run_->checkpointer.retire(*store_, {name});
  }

  Task<> removal() {
    const auto bytes = bench::random_bytes(sizes_.removed_mib << 20);
    LocalStorage storage(store_->location());
    BytesImage image(bytes);
    Removal removal;
    storage.commit("base.pth", image);
    const std::string base = store_->location() + "/base.pth";
    auto start = SteadyClock::now();
    if (::unlink(base.c_str()) != 0) throw std::runtime_error("unlink " + base);
    removal.unlink_ms = ms_since(start);
    storage.commit("large.pth", image);
    co_await sleep(20 * kPeriod);  // the ticks that waited for the above
    std::vector<double> lags;
    ticker_->record_into(&lags);
    start = SteadyClock::now();
    remove("large.pth");
    removal.call_ms = ms_since(start);
    while (under_way_ > 0) co_await sleep(kPeriod);
    removal.gone_ms = ms_since(start);
    ticker_->record_into(nullptr);
    removal.lag_ms = *std::max_element(lags.begin(), lags.end());
    removals.push_back(removal);
  }

  const Sizes sizes_;
  RunContext* run_ = nullptr;
  CheckpointStore* store_ = nullptr;
  std::shared_ptr<Ticker> ticker_;
  std::unique_ptr<TaskScope> scope_;
  int under_way_ = 0;
  bool save_wanted_ = false, done_ = false;
  SteadyClock::duration last_turn_{};
  std::string last_;
};

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto at = static_cast<std::size_t>(share * static_cast<double>(values.size()));
  return values[std::min(at, values.size() - 1)];
}

void lag_rows(const Sizes& sizes, const std::vector<Turn>& turns, bench::Results& results) {
  for (const double share : {0.5, 0.999}) {
    std::vector<double> quiet, busy;  // one value a turn
    Turn all;
    for (const Turn& turn : turns) {
      quiet.push_back(quantile(turn.quiet, share));
      busy.push_back(quantile(turn.busy, share));
      all.quiet.insert(all.quiet.end(), turn.quiet.begin(), turn.quiet.end());
      all.busy.insert(all.busy.end(), turn.busy.begin(), turn.busy.end());
    }
    const auto spread_of = [share](const std::vector<double>& pooled,
                                   const std::vector<double>& of_turns) {
      const auto turn = bench::spread(of_turns);
      return bench::Spread{quantile(pooled, share), turn.low, turn.high};
    };
    const auto without = spread_of(all.quiet, quiet);
    char base[64];
    std::snprintf(base, sizeof base, "%.3f ms without", without.median);
    bench::ResultRow row{
        .item = "11",
        .what = share == 0.5 ? "lag of a 1 kHz timer, p50" : "lag of a 1 kHz timer, p99.9",
        .contender = "Millrace",
        .setting = std::to_string(sizes.state_mib) + " MiB saved, hashed, rotated",
        .value = spread_of(all.busy, busy),
        .base = base,
        .noise = without,
        .unit = "ms"};
    if (share != 0.5) row.goal = 1;
    std::printf("| p%.1f | %.3f (%.3f to %.3f) | %.3f (%.3f to %.3f) | %zu | %zu |\n", share * 100,
                row.value.median, row.value.low, row.value.high, without.median, without.low,
                without.high, all.busy.size(), all.quiet.size());
    results.add(std::move(row));
  }
}

void removal_rows(const Sizes& sizes, const std::vector<Removal>& removals,
                  bench::Results& results) {
  std::vector<double> call, lag, unlink;
  for (const Removal& removal : removals) {
    call.push_back(removal.call_ms);
    lag.push_back(removal.lag_ms);
    unlink.push_back(removal.unlink_ms);
    std::ostringstream text;
    text << "{\"removed_mib\": " << sizes.removed_mib << ", \"call_ms\": " << removal.call_ms
         << ", \"lag_ms\": " << removal.lag_ms << ", \"gone_ms\": " << removal.gone_ms
         << ", \"unlink_ms\": " << removal.unlink_ms << "}";
    results.sample(text.str());
  }
  const auto in_place = bench::spread(unlink);
  char base[64];
  std::snprintf(base, sizeof base, "unlink() in place: %.0f ms", in_place.median);
  const std::string setting = std::to_string(sizes.removed_mib) + " MiB";
  const auto add = [&](const char* what, const std::vector<double>& ms) {
    const auto value = bench::spread(ms);
    std::printf("%s, %s: %.3f ms (%.3f to %.3f); %s\n", what, setting.c_str(), value.median,
                value.low, value.high, base);
    results.add({.item = "11",
                 .what = what,
                 .contender = "Millrace",
                 .setting = setting,
                 .value = value,
                 .base = base,
                 .goal = 1,
                 .unit = "ms"});
  };
  add("rotation, on the train thread", call);
  add("rotation, largest timer lag until the file is gone", lag);
}

void verify(const std::filesystem::path& folder) {
  const LocalStorage storage(folder);
  int found = 0;
  for (const auto& object : storage.list()) {
    if (!object.name.ends_with(".pth")) continue;
    const auto reader = PthReader::open(storage.open(object.name));
    if (!reader || !reader.value().verify()) {
      throw std::runtime_error(object.name + " does not verify");
    }
    ++found;
  }
  if (found != 1) throw std::runtime_error(std::to_string(found) + " files are left, not 1");
}

void measure(const Sizes& sizes, const char* path) {
  const test::TempDir folder;
  Parts parts;
  parts.strategy = bench::still_state(sizes.state_mib);
  parts.train = loader(bench::numbers(1000));
  auto hook = std::make_unique<TickHook>(sizes);
  const TickHook& ticks = *hook;
  parts.hooks.add(std::move(hook));
  RunOptions options;
  options.work_dir = folder.path();
  options.max_iters = 1'000'000'000;
  options.log_console = false;
  Runner runner(std::move(options), std::move(parts));
  TrainContext().run(runner.train());
  bench::Results results;
  std::printf("| lag | ms while saving (of turns) | ms without (of turns) | ticks | without |\n");
  std::printf("|---|---|---|---|---|\n");
  lag_rows(sizes, ticks.turns, results);
  removal_rows(sizes, ticks.removals, results);
  verify(folder.path());
  results.write(path);
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  const millrace::Sizes sizes =
      millrace::bench::quick() ? millrace::Sizes{32, 64, 3, 2} : millrace::Sizes{256, 1024, 20, 5};
  try {
    millrace::measure(sizes, argc > 1 ? argv[1] : nullptr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tick_bench: %s\n", error.what());
    return 1;
  }
}
