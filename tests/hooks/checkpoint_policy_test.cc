// Every policy of CheckpointHook at once, over random runs with a clock that a test moves: after
// each point the files in the storage are those that the policies' definitions give for the history
// so far, and after each operation of the storage there is a valid checkpoint, once there was one.
#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <random>
#include <set>
#include <type_traits>

#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/io/pth_reader.h"
#include "millrace/runtime/engine/checkpointer.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_run.h"
#include "tests/support/images.h"
#include "tests/support/memory_backed.h"
#include "tests/support/scripted_metric.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using std::chrono::nanoseconds;

// ---- the storage: memory, looked at after each operation

class WatchedStorage final : public test::MemoryBacked {
 public:
  WatchedStorage(std::shared_ptr<MemoryStorage> files, std::atomic<int>& violations)
      : MemoryBacked(std::move(files)), violations_(violations) {}

  CommitTimes commit(std::string_view name, FileImage& image) override {
    return looked_at([&] { return memory().commit(name, image); });
  }
  bool link(std::string_view existing, std::string_view name) override {
    return looked_at([&] { return memory().link(existing, name); });
  }
  bool append(std::string_view name, std::span<const std::byte> bytes) override {
    return looked_at([&] { return memory().append(name, bytes); });
  }
  void retire(std::string_view name) override {
    looked_at([&] {
      memory().retire(name);
      return 0;
    });
  }

 private:
  // Alone with the storage, so that no listed file is gone when it is opened.
  template <class Operation>
  std::invoke_result_t<Operation> looked_at(Operation operation) {
    const std::lock_guard lock(mutex_);
    const auto result = operation();
    look();
    return result;
  }
  void look() {
    bool any = false;
    for (const ObjectInfo& object : memory().list()) {
      if (!object.name.ends_with(".pth") || object.name.starts_with("best_")) continue;
      const auto reader = PthReader::open(memory().open(object.name));
      any = any || (reader && reader.value().verify());
    }
    if (any) {
      committed_ = true;
    } else if (committed_) {
      ++violations_;
    }
  }

  std::atomic<int>& violations_;
  std::mutex mutex_;
  bool committed_ = false;
};

// ---- the definitions

struct Plan {  // of one random run
  CheckpointHookOptions options;
  std::int64_t epochs = 0;  // 0: counts iterations
  std::int64_t iters = 0;
  std::vector<double> accuracy, loss;
  std::set<std::int64_t> on_demand, pinned;  // after these iterations
  std::vector<nanoseconds> step_time;        // of iteration i

  std::int64_t max_iters() const { return epochs > 0 ? epochs * 4 : iters; }
};

class Definition {
 public:
  Definition(const Plan& plan, const test::FakeClock& clock) : plan_(plan), clock_(clock) {}

  void before_train() { last_save_ = clock_.now(); }

  void after_iter(std::int64_t iter) {  // finished ones
    const CheckpointHookOptions& o = plan_.options;
    const bool last = !o.by_epoch && o.save_last && iter == plan_.max_iters();
    const bool timed = o.save_every.count() > 0 && clock_.now() - last_save_ >= o.save_every;
    if ((!o.by_epoch && due(iter)) || last || timed) save_iter(iter, false);
  }
  void on_demand(std::int64_t iter, bool pinned) {
    if (!history_.empty() && history_.back().iter == iter) {
      if (pinned && !gone_.contains(history_.back().name)) history_.back().pinned = true;
      return;
    }
    save_iter(iter, pinned);
  }
  void after_epoch(std::int64_t epoch) {
    const CheckpointHookOptions& o = plan_.options;
    if (!o.by_epoch) return;
    if (due(epoch) || (o.save_last && epoch == plan_.epochs)) {
      save({"epoch_" + std::to_string(epoch) + ".pth", epoch, 4 * epoch, 0, false});
    }
  }
  void after_val(std::int64_t epoch, std::int64_t iter, double accuracy, double loss) {
    const std::string name = plan_.options.by_epoch ? "epoch_" + std::to_string(epoch) + ".pth"
                                                    : "iter_" + std::to_string(iter) + ".pth";
    for (const std::string& key : plan_.options.save_best) {
      scores_[key].push_back({key == "acc" ? accuracy : -loss, "best_" + key + "_" + name});
    }
  }

  std::set<std::string> files() {
    std::set<std::string> kept = regular();
    for (auto& [key, scores] : scores_) {
      auto ranked = scores;
      std::stable_sort(ranked.begin(), ranked.end(),
                       [](const auto& a, const auto& b) { return a.first > b.first; });
      const auto count = static_cast<std::size_t>(plan_.options.keep_best);
      for (std::size_t i = 0; i < std::min(count, ranked.size()); ++i) {
        kept.insert(ranked[i].second);
      }
    }
    return kept;
  }

 private:
  struct Saved {
    std::string name;
    std::optional<std::int64_t> step;
    std::int64_t iter;
    std::int64_t time;
    bool pinned;
  };

  bool due(std::int64_t step) const {
    const CheckpointHookOptions& o = plan_.options;
    return o.interval > 0 && step >= o.save_begin && (step - o.save_begin) % o.interval == 0;
  }
  void save_iter(std::int64_t iter, bool pinned) {
    Saved saved{"iter_" + std::to_string(iter) + ".pth", {}, iter, 0, pinned};
    if (!plan_.options.by_epoch) saved.step = iter;
    save(saved);
  }
  void save(Saved saved) {
    saved.time = clock_.unix_ns();
    last_save_ = clock_.now();
    history_.push_back(std::move(saved));
  }

  std::set<std::string> regular() {
    const CheckpointHookOptions& o = plan_.options;
    std::set<std::string> kept;
    std::optional<std::int64_t> span;
    for (std::size_t i = 0; i < history_.size(); ++i) {
      const Saved& each = history_[i];
      bool keep = o.max_keep_ckpts < 1 || each.pinned ||
                  history_.size() - i <= static_cast<std::size_t>(o.max_keep_ckpts) ||
                  (o.keep_every > 0 && each.step && *each.step % o.keep_every == 0);
      if (o.keep_per.count() > 0 && (!span || each.time >= *span + o.keep_per.count())) {
        span = each.time;
        keep = true;
      }
      if (keep && !gone_.contains(each.name)) {
        kept.insert(each.name);
      } else {
        gone_.insert(each.name);
      }
    }
    return kept;
  }

  const Plan& plan_;
  const test::FakeClock& clock_;
  std::chrono::steady_clock::time_point last_save_;
  std::vector<Saved> history_;
  std::set<std::string> gone_;
  std::map<std::string, std::vector<std::pair<double, std::string>>> scores_;
};

// ---- a run held against them

struct Watch {
  const Plan* plan;
  Definition* definition;
  test::FakeClock* clock;
  std::shared_ptr<MemoryStorage> files;
  Runner* runner = nullptr;
  std::size_t compared = 0;
};

std::set<std::string> names_in(const Storage& storage) {
  std::set<std::string> names;
  for (const ObjectInfo& object : storage.list()) {
    if (object.name.ends_with(".pth")) names.insert(object.name);
  }
  return names;
}

Task<> compare(Watch* watch, RunContext* run) {
  co_await run->checkpointer.drain();
  const std::set<std::string> expected = watch->definition->files();
  const std::set<std::string> found = names_in(*watch->files);
  EXPECT_EQ(found, expected) << "at iteration " << run->at.iter;
  ++watch->compared;
}

std::unique_ptr<Hook> watching(Watch& watch) {
  auto subscribe = [&watch](Subscriptions& on, RunContext& run) {
    on.every<BeforeTrain>([&watch](const BeforeTrain&) { watch.definition->before_train(); });
    on.awaited<BeforeTrainIter>([&watch, &run](const BeforeTrainIter& e) {
      watch.clock->advance(watch.plan->step_time[static_cast<std::size_t>(e.at.iter)]);
      return compare(&watch, &run);
    });
    on.every<AfterTrainIter>([&watch](const AfterTrainIter& e) {
      watch.definition->after_iter(e.at.iter + 1);
      const std::int64_t done = e.at.iter + 1;
      if (watch.plan->on_demand.contains(done)) {
        watch.runner->checkpoint_now(watch.plan->pinned.contains(done));
      }
    });
    on.every<CheckpointRequested>([&watch, &run](const CheckpointRequested& e) {
      watch.definition->on_demand(run.at.iter, e.pinned);
    });
    on.every<AfterTrainEpoch>([&watch](const AfterTrainEpoch& e) {
      if (watch.plan->epochs > 0) watch.definition->after_epoch(e.at.epoch + 1);
    });
    on.awaited<AfterValEpoch>([&watch, &run](const AfterValEpoch& e) {
      watch.definition->after_val(e.at.epoch, e.at.iter, e.metrics[0].value, e.metrics[1].value);
      return compare(&watch, &run);
    });
    on.awaited<AfterTrain>([&watch, &run](const AfterTrain&) { return compare(&watch, &run); });
  };
  return std::make_unique<test::TestHook>(subscribe, "Watch", Priority::kLowest);
}

class Draws {
 public:
  explicit Draws(std::uint32_t seed) : random_(seed) {}
  std::int64_t in(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }
  bool one_in(std::int64_t n) { return in(1, n) == 1; }

 private:
  std::mt19937 random_;
};

Plan random_plan(std::uint32_t seed) {
  Draws draw(seed);
  Plan plan;
  CheckpointHookOptions& o = plan.options;
  o.by_epoch = draw.one_in(2);
  if (o.by_epoch) {
    plan.epochs = draw.in(2, 5);
  } else {
    plan.iters = draw.in(6, 18);
  }
  o.interval = draw.in(-1, 4);
  o.save_begin = draw.in(0, 3);
  o.save_last = draw.one_in(2);
  o.max_keep_ckpts = draw.in(-1, 3);
  if (o.max_keep_ckpts > 0 && draw.one_in(2)) o.keep_every = draw.in(2, 5);
  if (o.max_keep_ckpts > 0 && draw.one_in(2)) o.keep_per = nanoseconds(draw.in(10, 60));
  if (draw.one_in(3)) o.save_every = nanoseconds(draw.in(10, 50));
  if (draw.one_in(2)) o.save_best = {"acc"};
  if (draw.one_in(3)) o.save_best.emplace_back("loss");
  o.keep_best = draw.in(1, 3);
  o.mode = draw.one_in(2) ? StageMode::kEager : StageMode::kLazy;
  const std::int64_t iters = plan.max_iters();
  for (std::int64_t i = 1; i <= iters; ++i) {
    plan.step_time.emplace_back(draw.in(1, 12));
    if (i == iters) continue;  // what is asked for in the last iteration comes too late to compare
    if (draw.one_in(7)) plan.on_demand.insert(i);
    if (draw.one_in(2)) plan.pinned.insert(i);
  }
  for (int i = 0; i < 20; ++i) {
    plan.accuracy.push_back(static_cast<double>(draw.in(0, 9)) / 10);
    plan.loss.push_back(static_cast<double>(draw.in(0, 9)) / 10);
  }
  return plan;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint32_t kHistories = 20;  // of each hundred
#else
constexpr std::uint32_t kHistories = 100;
#endif

class Policies : public ::testing::TestWithParam<std::uint32_t> {};
INSTANTIATE_TEST_SUITE_P(, Policies, ::testing::Values(0U, 100U, 200U, 300U, 400U));

TEST_P(Policies, HoldOverRandomHistories) {
  for (std::uint32_t seed = GetParam(); seed < GetParam() + kHistories; ++seed) {
    SCOPED_TRACE(seed);
    const Plan plan = random_plan(seed);
    const test::TempDir dir;
    auto files = std::make_shared<MemoryStorage>();
    auto clock = std::make_shared<test::FakeClock>();
    std::atomic<int> violations{0};
    Definition definition(plan, *clock);
    Watch watch{&plan, &definition, clock.get(), files};
    test::FakeRun run(dir.path() / "run", {.floats = 300});
    (plan.epochs > 0 ? run.options.max_epochs : run.options.max_iters) =
        plan.epochs > 0 ? plan.epochs : plan.iters;
    run.options.val_interval = plan.epochs > 0 ? 1 : 3;
    run.parts.val = loader(test::fake_dataset(4), {.batch_size = 2});
    run.parts.metrics.push_back(std::make_unique<test::ScriptedMetric>("acc", plan.accuracy));
    run.parts.metrics.push_back(std::make_unique<test::ScriptedMetric>("loss", plan.loss));
    run.parts.storage = std::make_unique<WatchedStorage>(files, violations);
    run.parts.clock = clock;
    run.parts.hooks.add(std::make_unique<CheckpointHook>(plan.options));
    run.parts.hooks.add(watching(watch));
    watch.runner = &run.runner();
    run.train();
    EXPECT_EQ(violations, 0);
    EXPECT_GE(watch.compared, static_cast<std::size_t>(plan.max_iters()));
    if (HasFailure()) break;
  }
}

}  // namespace
}  // namespace millrace
