#include "tests/stress/crash_run.h"

#include <fstream>
#include <set>
#include <utility>

#include "millrace/events/checkpoint_events.h"
#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/io/checkpoint_store.h"
#include "millrace/io/local_storage.h"
#include "tests/support/scripted_metric.h"

namespace millrace::test {
namespace {

// The catalog is compacted above 64 KiB.
constexpr std::uint64_t kNearlyCompacted = (64 << 10) - 400;

DiskImage empty_disk(const TempDir& dir) {
  DiskImage disk;
  for (auto path = dir.path(); path != path.parent_path(); path = path.parent_path()) {
    disk.directories.insert(path.string());
  }
  disk.directories.insert("/");
  return disk;
}

// "epoch_6.pth" is 6.
std::int64_t number_in(const std::string& name) {
  return std::stoll(name.substr(name.rfind('_') + 1));
}

}  // namespace

CrashRun::CrashRun(CrashPlan plan) : plan_(std::move(plan)) {
  files_ = std::make_shared<RecordingFileOps>(empty_disk(dir_), plan_.limits);
  if (plan_.delays != 0) files_->delay(plan_.delays);
  train({}, true);
  if (plan_.long_catalog) lengthen_catalog();
  if (plan_.then == CrashPlan::Then::kResume) train(Resume::automatic(), false);
  if (plan_.then == CrashPlan::Then::kBranch) train(Resume::from(copy_of_oldest()), false);
  log_ = files_->log();
}

std::string CrashRun::checkpoints() const {
  return plan_.beside ? (dir_.path() / "out" / "run").string() : work_dir();
}

std::unique_ptr<FakeRun> CrashRun::make(std::shared_ptr<FileOps> files) const {
  auto run = std::make_unique<FakeRun>(work_dir(), FakeStrategyOptions{.floats = plan_.floats});
  run->options.max_epochs = plan_.epochs;
  run->options.max_iters = plan_.iters;
  run->options.io.threads = plan_.io_threads;
  run->options.io.low_priority = false;
  if (plan_.block_bytes > 0) {
    const WriteOptions direct{.block_bytes = plan_.block_bytes, .direct_from = 1};
    run->parts.storage = std::make_unique<LocalStorage>(work_dir(), files, direct);
  }
  run->parts.file_ops = std::move(files);
  if (!plan_.scores.empty()) {
    run->options.val_interval = plan_.val_interval;
    run->parts.val = loader(fake_dataset(4), {.batch_size = 2});
    run->parts.metrics.push_back(std::make_unique<ScriptedMetric>("acc", plan_.scores));
  }
  CheckpointHookOptions hook = plan_.hook();
  if (plan_.beside) hook.out_dir = dir_.path() / "out";
  run->parts.hooks.add(std::make_unique<CheckpointHook>(std::move(hook)));
  return run;
}

std::unique_ptr<FakeRun> CrashRun::again(std::shared_ptr<FileOps> files) const {
  auto run = make(std::move(files));
  if (plan_.epochs > 0) ++run->options.max_epochs;
  if (plan_.iters > 0) run->options.max_iters += 4;
  run->options.resume = Resume::automatic();
  return run;
}

void CrashRun::train(Resume resume, bool first) {
  const auto run = make(files_);
  run->options.resume = std::move(resume);
  watch(*run);
  run->parts.hooks.add(on_event<AfterTrainIter>(
      [this, first, &run](const AfterTrainIter& e, RunContext& context) {
        const std::int64_t finished = e.at.iter + 1;
        for (const std::int64_t ask : plan_.asks) {
          if (first && ask == finished) run->runner().checkpoint_now(true);
        }
        if (first && plan_.stop_after == finished) context.request_stop("test");
      },
      "Asks"));
  if (!first) {
    run->parts.hooks.add(on_event<BeforeTrain>(
        [&run](const BeforeTrain&, RunContext&) { run->strategy->body()[0] += 0.5f; }, "Branches"));
  }
  run->train();
}

// Told before CheckpointHook, so that what it does about a commit comes after the mark.
void CrashRun::watch(FakeRun& run) {
  const auto subscribe = [this, strategy = run.strategy](Subscriptions& on, RunContext&) {
    on.every<CheckpointCaptured>([this, strategy](const CheckpointCaptured& e) {
      const bool full = e.row.reason != "best" || plan_.hook().save_best_full;
      saves_[e.row.save_id] = {strategy->state(), e.row.generation, full};
    });
    on.every<CheckpointReplaced>([this](const CheckpointReplaced&) { ++replaced_; });
    on.every<CheckpointCommitted>([this](const CheckpointCommitted& e) { committed(e.row); });
    on.every<CheckpointRemoved>([this](const CheckpointRemoved& e) {
      if (!e.row.error.empty()) return;
      files_->mark(promises_.size());
      promises_.push_back({CrashPromise::Kind::kRemoved, e.row.name, {}});
    });
    on.every<CheckpointPublished>([this](const CheckpointPublished& e) {
      if (!e.row.error.empty()) return;
      files_->mark(promises_.size());
      promises_.push_back({CrashPromise::Kind::kPublished, e.row.published_name, {}});
    });
  };
  run.parts.hooks.add(std::make_unique<TestHook>(subscribe, "Watches", Priority::kHighest));
}

void CrashRun::committed(const CheckpointRow& row) {
  CrashPromise promise{CrashPromise::Kind::kCommitted, row.name, row.save_id};
  promise.best = row.reason == "best";
  promise.pointer = !promise.best;
  promise.full = saves_.at(row.save_id).full;
  const std::int64_t every = plan_.hook().keep_every;
  const std::string series = plan_.epochs > 0 ? "epoch_" : "iter_";
  const bool counted =
      every > 0 && row.name.starts_with(series) && number_in(row.name) % every == 0;
  promise.pinned = row.reason == "on_demand";
  promise.for_ever = counted || promise.pinned;
  files_->mark(promises_.size());
  promises_.push_back(std::move(promise));
}

// By pins that are set and taken away again. Promises about files that are gone are settled.
void CrashRun::lengthen_catalog() {
  LocalStorage storage(checkpoints(), files_);
  CheckpointStore store(storage, storage);
  store.prepare();
  std::string name;
  for (const CatalogRow& row : store.rows()) {
    if (row.pinned == false) name = row.name;
  }
  while (storage.open(Catalog::kName)->size() < kNearlyCompacted) {
    store.pin(name, true);
    store.pin(name, false);
  }
  files_->restart();
  std::set<std::string> removed;
  for (const CrashPromise& promise : promises_) {
    if (promise.kind == CrashPromise::Kind::kRemoved) removed.insert(promise.name);
  }
  std::erase_if(promises_, [&](const CrashPromise& p) { return removed.contains(p.name); });
  kept_ = promises_.size();
}

// On the real disk, because a path to resume from is opened there.
std::string CrashRun::copy_of_oldest() const {
  const DiskImage disk = files_->image();
  const CapturedSave* oldest = nullptr;
  std::string name;
  for (const CrashPromise& promise : promises_) {
    if (promise.kind != CrashPromise::Kind::kCommitted || !promise.full) continue;
    if (!disk.files.contains(checkpoints() + "/" + promise.name)) continue;
    const CapturedSave& save = saves_.at(promise.save_id);
    if (oldest != nullptr && oldest->generation <= save.generation) continue;
    oldest = &save;
    name = promise.name;
  }
  const std::string path = (dir_.path() / "older.pth").string();
  const std::vector<std::byte>& bytes = disk.files.at(checkpoints() + "/" + name)->bytes;
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  return path;
}

}  // namespace millrace::test
