#include "tests/stress/faulty_run.h"

#include <fstream>
#include <utility>

#include "millrace/hooks/default_hooks.h"
#include "millrace/io/checkpoint_identity.h"
#include "millrace/io/checkpoint_name.h"
#include "millrace/io/local_storage.h"
#include "millrace/io/object_name.h"
#include "millrace/runtime/async/error.h"

namespace millrace::test {
namespace {

constexpr std::size_t kFloats = 4200;  // above Staging::kSmall
constexpr std::int64_t kEpochs = 5, kItersAnEpoch = 4;

// A number that depends on the weights alone, so that a resumed run sees the same scores.
class WeightMetric final : public Metric {
 public:
  explicit WeightMetric(FakeStrategy& strategy) : strategy_(strategy) {}
  void reset() override {}
  void process(const TensorView&, const Batch&) override {}
  std::vector<MetricValue> compute() override {
    const auto scaled = static_cast<std::int64_t>(strategy_.body()[0] * 1e6F);
    return {{"acc", static_cast<double>(scaled % 97)}};
  }
  std::vector<std::string> names() const override { return {"acc"}; }

 private:
  FakeStrategy& strategy_;
};

bool is_best(const std::string& name) { return name.starts_with("best_"); }

void copy_files(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::filesystem::remove_all(to);
  if (!std::filesystem::exists(from)) return;
  std::filesystem::create_directories(to);
  for (const auto& entry : std::filesystem::directory_iterator(from)) {
    if (!entry.is_regular_file()) continue;
    std::filesystem::copy_file(entry.path(), to / entry.path().filename());
  }
}

}  // namespace

// ---- promises

void Promises::watch(FakeRun& run) {
  began = false;
  failures = failed_saves = committed = published = 0;
  finished_ = 0;
  const auto subscribe = [this, strategy = run.strategy](Subscriptions& on, RunContext&) {
    on.every<BeforeTrain>([this](const BeforeTrain&) { began = true; });
    on.every<AfterTrainIter>([this](const AfterTrainIter& e) { finished_ = e.at.iter + 1; });
    on.every<CheckpointCaptured>(
        [this, strategy](const CheckpointCaptured& e) { captured(e.row, strategy->state()); });
    on.every<CheckpointCommitted>([this](const CheckpointCommitted& e) { done(e.row); });
    on.every<CheckpointFailed>([this](const CheckpointFailed& e) { failed(e.row); });
    on.every<CheckpointRemoved>([this](const CheckpointRemoved& e) { removed(e.row); });
    on.every<CheckpointPublished>([this](const CheckpointPublished& e) {
      if (e.row.error.empty()) {
        ++published;
        published_.insert(e.row.published_name);
      } else {
        ++failures;
      }
    });
  };
  run.parts.hooks.add(std::make_unique<TestHook>(subscribe, "Promises", Priority::kHighest));
}

void Promises::captured(const CheckpointRow& row, std::vector<std::vector<std::byte>> state) {
  saves_[row.save_id] = {std::move(state), row.generation};
}

void Promises::done(const CheckpointRow& row) {
  ++committed;
  const std::uint64_t newest = newest_promised();
  if (row.reason != "best" && generation(row.save_id) <= newest) {
    broken_.push_back(row.name + " has generation " + std::to_string(generation(row.save_id)) +
                      ", and what is there has " + std::to_string(newest));
  }
  held_[row.name] = row.save_id;
  perhaps_.erase(row.name);
}

// What became of the name is not known: the directory's sync may have failed after the rename.
void Promises::failed(const CheckpointRow& row) {
  ++failures;
  if (failed_saves++ == 0) failed_at = finished_;
  perhaps_[row.name].insert(row.save_id);
}

// Told also of a removal that failed: whether the file is there is then not known.
void Promises::removed(const RemovedRow& row) {
  const auto victim = held_.find(row.name);
  if (victim == held_.end()) return;
  const std::uint64_t old = generation(victim->second);
  std::int64_t successors = 0;
  const auto count = [&](const std::string& name, const std::string& save_id) {
    if (is_best(name) == is_best(row.name) && generation(save_id) > old) ++successors;
  };
  for (const auto& [name, save_id] : held_) count(name, save_id);
  for (const auto& [name, ids] : perhaps_) {
    for (const std::string& save_id : ids) count(name, save_id);
  }
  const std::int64_t needed = is_best(row.name) ? 1 : keep_;
  if (successors < needed) {
    broken_.push_back(row.name + " was removed for " + std::to_string(successors) + " newer ones");
  }
  perhaps_[row.name].insert(victim->second);
  held_.erase(victim);
}

std::uint64_t Promises::generation(const std::string& save_id) const {
  const auto found = saves_.find(save_id);
  return found == saves_.end() ? 0 : found->second.generation;
}

bool Promises::may_hold(const std::string& name, const std::string& save_id) const {
  const auto held = held_.find(name);
  if (held != held_.end() && held->second == save_id) return true;
  const auto perhaps = perhaps_.find(name);
  return perhaps != perhaps_.end() && perhaps->second.contains(save_id);
}

std::optional<std::string> Promises::save_in(const std::filesystem::path& directory,
                                             const std::string& name) const {
  const LocalStorage storage(directory);
  try {
    const auto identity = read_identity(storage.open(name));
    if (!identity) return std::nullopt;
    const auto save = saves_.find(identity.value().save_id);
    if (save == saves_.end() || identity.value().generation != save->second.generation) {
      return std::nullopt;
    }
    if (state_in(storage, name) != save->second.state) return std::nullopt;
    return save->first;
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::vector<std::string> Promises::check(const std::filesystem::path& directory) const {
  std::vector<std::string> problems = broken_;
  for (const auto& [name, save_id] : held_) {
    const auto there = save_in(directory, name);
    if (!there) {
      problems.push_back(name + " was promised, and is gone or is not what was captured");
    } else if (!may_hold(name, *there)) {
      problems.push_back(name + " is another save than the one promised");
    }
  }
  for (const std::string& name : published_) {
    if (!std::filesystem::exists(directory / name)) problems.push_back(name + " is gone");
  }
  if (!std::filesystem::exists(directory)) return problems;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (!is_checkpoint_name(name) || is_hidden_name(name) || is_published_name(name)) continue;
    if (!save_in(directory, name)) problems.push_back(name + " is there and is not whole");
  }
  std::string pointer;
  std::getline(std::ifstream(directory / "last_checkpoint") >> std::ws, pointer);
  if (!pointer.empty() && !save_in(directory, std::filesystem::path(pointer).filename())) {
    problems.push_back("last_checkpoint names " + pointer + ", which is no whole checkpoint");
  }
  return problems;
}

std::uint64_t Promises::newest_there(const std::filesystem::path& directory) const {
  std::uint64_t newest = 0;
  if (!std::filesystem::exists(directory)) return newest;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (is_hidden_name(name) || !is_checkpoint_name(name) || is_published_name(name)) continue;
    const auto save = save_in(directory, name);
    if (save) newest = std::max(newest, generation(*save));
  }
  return newest;
}

std::uint64_t Promises::newest_promised() const {
  std::uint64_t newest = 0;
  for (const auto& [name, save_id] : held_) newest = std::max(newest, generation(save_id));
  return newest;
}

// ---- runs

FaultyRun::FaultyRun(const std::filesystem::path& root, const FaultPlan& plan)
    : promises(plan.keep), root_(root / plan.name), plan_(plan), start_promises_(plan.keep) {
  std::filesystem::create_directories(root_);
  make_start();
}

std::unique_ptr<FakeRun> FaultyRun::base(std::uint64_t seed) {
  auto run = std::make_unique<FakeRun>(directory(), FakeStrategyOptions{.floats = kFloats});
  run->options.seed = seed;
  run->options.io.threads = plan_.io_threads;
  run->options.io.low_priority = false;
  plan_.by_epoch ? run->options.max_epochs = kEpochs
                 : run->options.max_iters = kEpochs * kItersAnEpoch;
  run->options.val_interval = plan_.by_epoch ? 1 : kItersAnEpoch;
  run->parts.val = loader(fake_dataset(4), {.batch_size = 2});
  run->parts.metrics.push_back(std::make_unique<WeightMetric>(*run->strategy));
  run->parts.file_ops = ops;
  const WriteOptions writes{.block_bytes = 32768, .direct_from = plan_.direct ? 1 : UINT64_MAX};
  run->parts.storage = std::make_unique<LocalStorage>(directory(), ops, writes);
  DefaultHookOptions hooks;
  hooks.logger.interval = 1;
  hooks.checkpoint = {.interval = plan_.by_epoch ? 1 : 3, .by_epoch = plan_.by_epoch};
  hooks.checkpoint.save_best = {"acc"};
  hooks.checkpoint.max_keep_ckpts = plan_.keep;
  hooks.checkpoint.published_keys = {"meta", "state_dict"};
  hooks.checkpoint.mode = plan_.mode;
  hooks.checkpoint.on_error = plan_.on_error;
  run->parts.hooks = default_hooks(std::move(hooks));
  return run;
}

void FaultyRun::make_start() {
  ops = std::make_shared<FaultFileOps>(FaultFileOps::Syncs::kSkipped);
  if (plan_.start == FaultPlan::Start::kFresh) return;
  const bool resumed = plan_.start == FaultPlan::Start::kResumed;
  auto run = base(resumed ? 1 : 2);
  start_promises_.watch(*run);
  run->parts.hooks.add(on_event<AfterTrainIter>([=](const AfterTrainIter& e, RunContext& context) {
    if (resumed && e.at.iter + 1 == 10) context.request_stop("test");
  }));
  run->train();
  for (const char* name : {".epoch_9.pth.0123456789abcdef.tmp", ".a.0123456789abcdef.trash"}) {
    std::ofstream(directory() / name) << "left behind";
  }
  copy_files(directory(), root_ / "start");
}

void FaultyRun::reset() {
  copy_files(root_ / "start", directory());
  ops = std::make_shared<FaultFileOps>(FaultFileOps::Syncs::kSkipped);
  promises = start_promises_;
}

std::unique_ptr<FakeRun> FaultyRun::make(bool later) {
  auto run = base(1);
  if (later) plan_.by_epoch ? run->options.max_epochs += 1 : run->options.max_iters += 4;
  const bool resumes = later || plan_.start == FaultPlan::Start::kResumed;
  if (resumes) run->options.resume = Resume::automatic();
  promises.watch(*run);
  return run;
}

std::optional<std::string> FaultyRun::train(FakeRun& run) {
  try {
    run.train();
  } catch (const std::exception& error) {
    return error.what();
  }
  return std::nullopt;
}

std::vector<std::string> FaultyRun::leftovers() const {
  std::vector<std::string> names;
  if (!std::filesystem::exists(directory())) return names;
  for (const auto& entry : std::filesystem::directory_iterator(directory())) {
    const std::string name = entry.path().filename().string();
    if (is_leftover_name(name)) names.push_back(name);
  }
  return names;
}

}  // namespace millrace::test
