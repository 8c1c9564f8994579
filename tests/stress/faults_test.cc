// Every storage operation of whole trainings failing, once and for ever.
//
// What holds in every case: training goes on to its end, or stops as on_error says, and the error
// is told; no numbers change; what was announced as committed and not given up is on the disk, byte
// for byte; no descriptor stays open; no file is synced again after a failed sync. A later training
// without faults sweeps what lies about, resumes from the newest checkpoint and ends where an
// undisturbed one does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <random>
#include <set>

#include "millrace/io/catalog.h"
#include "millrace/io/local_storage.h"
#include "tests/stress/fault_table.h"
#include "tests/stress/faulty_run.h"
#include "tests/support/stress.h"
#include "tests/support/temp_dir.h"

namespace millrace::test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using State = std::vector<std::vector<std::byte>>;

const FaultPlan kPlans[] = {
    {.name = "fresh"},
    {.name = "resumed",
     .start = FaultPlan::Start::kResumed,
     .direct = true,
     .mode = StageMode::kBlocking,
     .keep = 1},
    {.name = "over", .start = FaultPlan::Start::kOver, .mode = StageMode::kEager, .keep = 1},
    {.name = "iterations",
     .start = FaultPlan::Start::kResumed,
     .by_epoch = false,
     .direct = true,
     .io_threads = 2},
    {.name = "stops", .on_error = OnSaveError::kStop, .io_threads = 2},
};

// A call that is interrupted again and again is repeated for ever, so even this ends.
constexpr std::size_t kInterruptions = 25;
constexpr unsigned kHangSeconds = 120;
constexpr std::size_t kShareOfAPlan = 90;
constexpr std::size_t kFailuresShown = 20;

std::string running;  // for the alarm

void report_hang(int) {
  constexpr char kText[] = "no end of the run where ";
  [[maybe_unused]] auto written = ::write(2, kText, sizeof kText - 1);
  written = ::write(2, running.data(), running.size());
  ::_exit(1);
}

struct Fault {
  std::size_t n = 0;  // of the calls of a clean run, from 1
  FaultKind kind = FaultKind::kIo;
  bool forever = false;
};

struct Counts {
  std::size_t runs = 0, unreached = 0, told = 0, unharmed = 0, calls = 0;
};
Counts totals;

// The numbers of an undisturbed training, the state it ends in, and the one an epoch later.
struct Undisturbed {
  std::vector<std::string> numbers;
  State at_end, later;
};

class StorageFaults : public ::testing::TestWithParam<FaultPlan> {
 protected:
  void SetUp() override {
    ::signal(SIGALRM, report_hang);
    FaultPlan plan = GetParam();
    plan.start = FaultPlan::Start::kFresh;
    plan.name = "undisturbed";
    FaultyRun straight(dir_.path(), plan);
    auto first = straight.make(false);
    ASSERT_EQ(straight.train(*first), std::nullopt);
    expected_.at_end = first->strategy->state();
    expected_.numbers = first->log->numbers();
    straight.reset();
    auto second = straight.make(true);
    ASSERT_EQ(straight.train(*second), std::nullopt);
    expected_.later = second->strategy->state();
    ASSERT_GT(expected_.numbers.size(), 24u);
  }
  void TearDown() override { ::alarm(0); }
  static void TearDownTestSuite() {
    stress_report("faults: " + std::to_string(totals.runs) + " trainings with a fault in one of " +
                  std::to_string(totals.calls) + " calls or in all from it on, " +
                  std::to_string(totals.told) + " told, " + std::to_string(totals.unharmed) +
                  " did no harm, " + std::to_string(totals.unreached) + " came too late");
  }

  std::vector<FileCall> clean_calls(FaultyRun& rig);
  void survive(FaultyRun& rig, const Fault& fault, const std::string& text);
  void expect_outcome(const FaultyRun& rig, FakeRun& run, const std::optional<std::string>& error);
  void expect_told(const FaultyRun& rig, FakeRun& run, const std::optional<std::string>& error,
                   const FileCall& call, FaultKind kind);
  void expect_same_numbers(FakeRun& run, bool complete);
  void expect_recovery(FaultyRun& rig);
  bool is_other_branch(std::uint64_t generation) const;

  TempDir dir_;
  Undisturbed expected_;
  std::uint64_t start_generation_ = 0;  // newest of the other branch, in a plan that starts over
};

std::vector<FileCall> StorageFaults::clean_calls(FaultyRun& rig) {
  rig.reset();
  start_generation_ = rig.promises.newest_promised();
  const auto run = rig.make(false);
  EXPECT_EQ(rig.train(*run), std::nullopt);
  EXPECT_EQ(run->strategy->state(), expected_.at_end);
  EXPECT_THAT(rig.promises.check(rig.directory()), IsEmpty());
  EXPECT_GT(rig.promises.committed, 2u);
  EXPECT_GT(rig.promises.published, 0u);
  return rig.ops->calls();
}

// After a failed sync the pages may be marked clean, so another one would lie. The file has to be
// replaced first.
void expect_no_second_sync(const std::vector<FileCall>& calls) {
  std::set<std::string> lost;
  for (const FileCall& call : calls) {
    const bool writes =
        call.op == FileOp::kFdatasync || call.op == FileOp::kPwrite || call.op == FileOp::kAppend;
    EXPECT_FALSE(writes && lost.contains(call.path)) << call.text() << " after a failed sync";
    if (call.op == FileOp::kRename) {
      EXPECT_FALSE(lost.contains(call.path)) << call.text() << " after a failed sync";
      if (call.result == 0) lost.erase(call.to);
    }
    if (call.op == FileOp::kFdatasync && call.result < 0) lost.insert(call.path);
  }
}

void StorageFaults::expect_same_numbers(FakeRun& run, bool complete) {
  const auto numbers = run.log->numbers();
  const auto& all = expected_.numbers;
  const auto found = std::search(all.begin(), all.end(), numbers.begin(), numbers.end());
  ASSERT_TRUE(found != all.end() || numbers.empty()) << ::testing::PrintToString(numbers);
  if (complete) {
    EXPECT_EQ(run.strategy->state(), expected_.at_end);
  }
}

void StorageFaults::expect_outcome(const FaultyRun& rig, FakeRun& run,
                                   const std::optional<std::string>& error) {
  const Promises& told = rig.promises;
  const std::int64_t end = run.options.max_iters > 0 ? run.options.max_iters : 20;
  if (!told.began) {  // a directory that cannot be used is found before training
    EXPECT_TRUE(error);
    EXPECT_EQ(told.committed, 0u);
    return;
  }
  EXPECT_EQ(told.failures > 0, error.has_value()) << error.value_or("no error");
  if (GetParam().on_error == OnSaveError::kStop && told.failed_saves > 0) {
    EXPECT_THAT(error.value_or(""), HasSubstr("on_error is stop"));
    EXPECT_LE(run.runner().progress().iter, told.failed_at + 1);
  } else {
    EXPECT_EQ(run.runner().progress().iter, end);
    EXPECT_TRUE(error || told.published > 0);
  }
  expect_same_numbers(run, run.runner().progress().iter == end);
}

// One fault: harmless as the table says, or heard of.
void StorageFaults::expect_told(const FaultyRun& rig, FakeRun& run,
                                const std::optional<std::string>& error, const FileCall& call,
                                FaultKind kind) {
  const char* reason = why_tolerated(call, kind);
  if (reason != nullptr) {
    EXPECT_TRUE(!rig.promises.began || !error) << *error << ", though it is tolerated: " << reason;
    return;
  }
  if (may_be_silent(call)) return;
  const std::string number = std::strerror(-static_cast<int>(call.result));
  const bool logged = !run.log->with(number).empty();
  EXPECT_TRUE(logged || (error && error->find(number) != std::string::npos))
      << call.text() << " failed in silence";
}

bool StorageFaults::is_other_branch(std::uint64_t generation) const {
  return GetParam().start == FaultPlan::Start::kOver && generation <= start_generation_;
}

// A later training, without faults.
void StorageFaults::expect_recovery(FaultyRun& rig) {
  const std::uint64_t newest = rig.promises.newest_there(rig.directory());
  EXPECT_GE(newest, rig.promises.newest_promised());
  std::map<std::string, std::uint64_t> generations;
  for (const auto& info : LocalStorage(rig.directory()).list()) {
    const auto save = rig.promises.save_in(rig.directory(), info.name);
    if (save) generations[info.name] = rig.promises.generation(*save);
  }
  rig.ops->forget_calls();
  const auto later = rig.make(true);
  EXPECT_EQ(rig.train(*later), std::nullopt);
  EXPECT_THAT(rig.leftovers(), IsEmpty());
  EXPECT_EQ(rig.ops->open_descriptors(), 0u);
  EXPECT_THAT(rig.promises.check(rig.directory()), IsEmpty());
  const auto resumed = later->log->with("Resumed from ");
  EXPECT_EQ(resumed.size(), newest > 0 ? 1u : 0u);
  if (!resumed.empty()) {
    const std::string path = resumed[0].substr(13, resumed[0].find(',') - 13);
    EXPECT_EQ(generations[path.substr(path.rfind('/') + 1)], newest) << resumed[0];
  }
  if (!is_other_branch(newest)) {
    EXPECT_EQ(later->strategy->state(), expected_.later);
  }
  LocalStorage storage(rig.directory());
  EXPECT_THAT(Catalog(storage).open(), IsEmpty());
}

void StorageFaults::survive(FaultyRun& rig, const Fault& fault, const std::string& text) {
  SCOPED_TRACE(text);
  running = text + "\n";
  ::alarm(kHangSeconds);
  rig.reset();
  std::optional<FileCall> hit;
  std::size_t left = fault.kind == FaultKind::kInterrupted ? kInterruptions : SIZE_MAX;
  if (!fault.forever) left = 1;
  rig.ops->decide([&](std::size_t n, const FileCall& call) -> FaultFileOps::Fate {
    if (n < fault.n || left == 0 || !can_fail(call, fault.kind)) return {};
    if (!fault.forever && n > fault.n) return {};
    --left;
    FaultFileOps::Fate fate = fate_of(call, fault.kind);
    if (!hit) {
      hit = call;
      hit->result = -fate.error_number;
    }
    return fate;
  });
  const auto run = rig.make(false);
  const auto error = rig.train(*run);
  rig.ops->clear_faults();
  EXPECT_EQ(rig.ops->open_descriptors(), 0u);
  expect_no_second_sync(rig.ops->calls());
  expect_outcome(rig, *run, error);
  if (hit && !fault.forever) expect_told(rig, *run, error, *hit, fault.kind);
  EXPECT_THAT(rig.promises.check(rig.directory()), IsEmpty());
  ++totals.runs;
  ++(!hit ? totals.unreached : error ? totals.told : totals.unharmed);
  expect_recovery(rig);
}

TEST_P(StorageFaults, LoseNothingAndChangeNoNumber) {
  FaultyRun rig(dir_.path(), GetParam());
  const std::vector<FileCall> calls = clean_calls(rig);
  totals.calls += calls.size();
  std::vector<Fault> faults;
  for (std::size_t n = 1; n <= calls.size(); ++n) {
    for (const FaultKind kind : kFaultKinds) {
      if (!can_fail(calls[n - 1], kind)) continue;
      for (const bool forever : {false, true}) faults.push_back({n, kind, forever});
    }
  }
  const std::size_t unreached_before = totals.unreached;
  std::size_t failed = 0;
  std::mt19937_64 random(stress_seed());
  std::shuffle(faults.begin(), faults.end(), random);
  faults.resize(std::min(faults.size(), stress_count(kShareOfAPlan, faults.size())));
  for (const Fault& fault : faults) {
    survive(rig, fault,
            std::string(GetParam().name) + ": call " + std::to_string(fault.n) + ", " +
                calls[fault.n - 1].text() + ", has " + fault_name(fault.kind) +
                (fault.forever ? " for ever" : " once"));
    failed += HasFailure() ? 1 : 0;  // and every one after it
    if (failed == kFailuresShown) return;
  }
  // Where two threads share the calls, the n-th may be another one, or come after the last.
  const std::size_t by_chance = GetParam().io_threads > 1 ? 5 : 0;
  EXPECT_LE(totals.unreached - unreached_before, faults.size() / 10 + by_chance);
}

INSTANTIATE_TEST_SUITE_P(, StorageFaults, ::testing::ValuesIn(kPlans),
                         [](const auto& plan) { return std::string(plan.param.name); });

}  // namespace
}  // namespace millrace::test
