// Power cuts: at every operation of whole runs, on every kind of disk, the real recovery finds what
// was promised. The first tests hold the model itself (crash_states.h) against small logs.
#include "tests/support/crash_states.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/stress/crash_search.h"
#include "tests/support/images.h"
#include "tests/support/stress.h"

namespace millrace::test {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

// Disks as text, "a=old b=new": every disk after the last operation, or after any of them.
struct CrashStatesTest : ::testing::Test {
  CrashStatesTest() : files(DiskImage{{"/", "/d"}, {}}) {}

  int create(const std::string& name, std::string_view text) {
    const int fd = files.create_exclusive("/d/" + name, false);
    files.pwrite(fd, bytes_of_text(text), 0);
    return fd;
  }
  void durable(const std::string& name, std::string_view text) {
    files.close(create(name, text));
    files.restart();
  }
  static std::string text_of(const CrashState& state) {
    std::string text;
    for (const auto& [path, file] : state.disk.files) {
      text += (text.empty() ? "" : " ") + path.substr(path.rfind('/') + 1) + "=";
      for (const std::byte byte : file->bytes) {
        const char c = static_cast<char>(byte);
        text += c == 0 ? '0' : c >= 'a' && c <= 'z' ? c : '?';
      }
    }
    return text;
  }
  // A mark before the last point keeps its disks from being taken for those of earlier ones.
  std::set<std::string> after_all(CrashLimits limits = {}) {
    DiskLog log = files.log();
    log.operations.push_back({DiskOperation::Kind::kMark});
    const std::size_t end = log.operations.size();
    std::set<std::string> found;
    for_each_crash_state(log, limits, [&](const CrashState& state) {
      if (state.operations == end) found.insert(text_of(state));
    });
    return found;
  }

  RecordingFileOps files;
};

TEST_F(CrashStatesTest, WhatIsSyncedStays) {
  const int fd = create("a", "new");
  files.fdatasync(fd);
  files.fsync_dir("/d");
  EXPECT_THAT(after_all(), UnorderedElementsAre("a=new"));
}

TEST_F(CrashStatesTest, AFileSyncMakesNoNameDurable) {
  files.fdatasync(create("a", "new"));
  EXPECT_THAT(after_all(), UnorderedElementsAre("a=new", ""));
}

TEST_F(CrashStatesTest, ADirectorySyncMakesNoByteDurable) {
  create("a", "new");
  files.fsync_dir("/d");
  EXPECT_THAT(after_all(), UnorderedElementsAre("a=new", "a=", "a=000", "a=???"));
}

TEST_F(CrashStatesTest, AnUnsyncedFileMayHaveAFinalName) {
  durable("a", "old");
  create("t", "new");
  files.rename("/d/t", "/d/a");
  EXPECT_THAT(after_all(), IsSupersetOf({"a=old", "a=new", "a=000", "a=", "a=old t=000"}));
}

TEST_F(CrashStatesTest, ARenameMayBeHalfThere) {
  durable("a", "old");
  files.rename("/d/a", "/d/b");
  EXPECT_THAT(after_all(), UnorderedElementsAre("a=old", "b=old", "", "a=old b=old"));
}

TEST_F(CrashStatesTest, NamesThatNoSyncSeparatesComeInAnyOrder) {
  durable("a", "old");
  files.fdatasync(create("b", "new"));
  files.unlink("/d/a");
  EXPECT_THAT(after_all(), UnorderedElementsAre("a=old", "a=old b=new", "b=new", ""));
}

TEST_F(CrashStatesTest, ASyncSeparates) {
  durable("a", "old");
  files.fdatasync(create("b", "new"));
  files.fsync_dir("/d");
  files.unlink("/d/a");
  EXPECT_THAT(after_all(), UnorderedElementsAre("a=old b=new", "b=new"));
}

TEST_F(CrashStatesTest, LinksAreOneFile) {
  durable("a", "old");
  files.link("/d/a", "/d/b");
  const int fd = files.open_append("/d/a", false);
  files.append(fd, bytes_of_text("er"));
  const auto found = after_all();
  EXPECT_THAT(found, IsSupersetOf({"a=old b=old", "a=older b=older", "a=old00", "a=old"}));
  EXPECT_THAT(found, Not(Contains("a=old b=older")));
}

TEST_F(CrashStatesTest, SectorsAreTornAndNeverMixed) {
  const std::string first(512, 'a'), second(512, 'b'), third(512, 'c');
  files.restart();
  const int fd = files.create_exclusive("/d/f", false);
  files.pwrite(fd, bytes_of_text(first + second), 0);
  files.pwrite(fd, bytes_of_text(third), 0);
  files.fsync_dir("/d");
  std::set<std::string> sectors;
  for (const std::string& disk : after_all({.per_point = 1000})) {
    for (std::size_t at = 2; at + 512 <= disk.size(); at += 512) {
      sectors.insert(disk.substr(at, 512));
    }
  }
  const std::string zeros(512, '0');
  EXPECT_THAT(sectors, IsSupersetOf({first, second, third, zeros}));
  for (const std::string& sector : sectors) {
    const auto same = std::count(sector.begin(), sector.end(), sector.front());
    EXPECT_TRUE(same == 512 || sector.find_first_of("abc") == std::string::npos);
  }
}

TEST_F(CrashStatesTest, ADirectoryTakesWhatIsInItAlong) {
  files.mkdir("/d/e");
  files.fdatasync(files.create_exclusive("/d/e/f", false));
  files.fsync_dir("/d/e");
  EXPECT_THAT(after_all(), UnorderedElementsAre("f=", ""));
  files.fsync_dir("/d");
  EXPECT_THAT(after_all(), UnorderedElementsAre("f="));
}

TEST_F(CrashStatesTest, SamplesAreRepeatedBySeedAndHaveTheCorners) {
  durable("a", "old");
  for (const char name : std::string("bcdefgh")) {
    create(std::string(1, name), std::string(2000, 'x'));
  }
  files.rename("/d/b", "/d/a");
  const auto states = [this](std::uint64_t seed) {
    return after_all({.per_point = 12, .seed = seed});
  };
  const auto some = states(1);
  EXPECT_EQ(some, states(1));
  EXPECT_NE(some, states(2));
  EXPECT_THAT(some, Contains("a=old"));
}

// ---- the runs

bool has(const CrashRun& run, const std::function<bool(const DiskOperation&)>& is) {
  const auto& all = run.log().operations;
  return std::any_of(all.begin(), all.end(), is);
}

bool promised(const CrashRun& run, const std::function<bool(const CrashPromise&)>& is) {
  return std::any_of(run.promises().begin(), run.promises().end(), is);
}

// Without this a plan could silently stop doing what it is there for.
TEST(CrashPlans, DoWhatTheirNamesSay) {
  using Op = DiskOperation::Kind;
  using Promise = CrashPromise::Kind;
  std::map<std::string, std::unique_ptr<CrashRun>> runs;
  for (const CrashPlan& plan : crash_plans(stress_seed())) {
    runs.emplace(plan.name, std::make_unique<CrashRun>(plan));
  }
  const auto plans = crash_plans(stress_seed());
  const auto busy = std::find_if(plans.begin(), plans.end(), [](const CrashPlan& plan) {
    return plan.name == "saves that are replaced";
  });
  std::size_t replaced = runs.at(busy->name)->replaced();
  for (int tries = 1; replaced == 0 && tries < 20; ++tries) {
    replaced = CrashRun(*busy).replaced();  // whether the disk is busy is up to the threads
  }
  EXPECT_GT(replaced, 0u);
  for (const char* name : {"keeps one", "best between saves", "branch with best files"}) {
    EXPECT_TRUE(promised(*runs.at(name), [](const auto& p) { return p.kind == Promise::kRemoved; }))
        << name;
  }
  for (const char* name : {"best between saves", "branch with best files"}) {
    EXPECT_TRUE(promised(*runs.at(name), [](const auto& p) { return p.best; })) << name;
  }
  const CrashRun& best = *runs.at("best, every N, published");
  EXPECT_TRUE(promised(best, [](const auto& p) { return p.kind == Promise::kPublished; }));
  EXPECT_TRUE(promised(best, [](const auto& p) { return p.kind == Promise::kRemoved; }));
  EXPECT_TRUE(promised(best, [](const auto& p) { return p.best; }));
  EXPECT_TRUE(promised(best, [](const auto& p) { return p.for_ever; }));
  EXPECT_TRUE(has(best, [](const auto& op) { return op.kind == Op::kLink; }));
  const CrashRun& asked = *runs.at("on demand, stopped, resumed");
  EXPECT_TRUE(promised(asked, [](const auto& p) { return p.pinned; }));

  std::multiset<std::string> taken;
  for (const DiskOperation& op : runs.at("branch from an older file")->log().operations) {
    if (op.kind == Op::kRename && op.to.ends_with(".pth")) taken.insert(op.to);
  }
  EXPECT_TRUE(std::any_of(taken.begin(), taken.end(), [&](auto& t) { return taken.count(t) > 1; }));

  const CrashRun& compacted = *runs.at("compacted catalog");
  const std::string catalog = compacted.checkpoints() + "/checkpoints.catalog";
  EXPECT_TRUE(has(compacted, [&](const DiskOperation& op) { return op.to == catalog; }));
  EXPECT_LT(compacted.log().start.files.at(catalog)->bytes.size(), std::size_t{64} << 10);

  const CrashRun& beside = *runs.at("out_dir");
  for (const std::string& directory : {beside.work_dir(), beside.checkpoints()}) {
    EXPECT_TRUE(has(beside, [&](const DiskOperation& op) {
      return op.kind == Op::kSyncDirectory && op.path == directory;
    }));
  }
  EXPECT_FALSE(has(*runs.at("no links"), [](const auto& op) { return op.kind == Op::kLink; }));
  EXPECT_TRUE(has(*runs.at("direct writes"), [](const DiskOperation& op) {
    return op.kind == Op::kWrite && op.offset > 0 && op.offset % 4096 == 0;
  }));
}

std::string told(const CrashFault& fault) { return std::string(fault.kind) + ": " + fault.text; }

TEST(CrashStates, RecoveryFindsWhatWasPromised) {
  CrashFindings findings;
  for (std::size_t round = 0; round < stress_count(4, 40); ++round) {
    CrashSearch search;
    search.seed = stress_seed() + 1000 * round;
    search.delays = round % 2 == 1;
    search.per_point = stress_count(24, 96);
    search.states_per_run = stress_count(300, 5000);
    search.resumes_per_run = stress_count(3, 12);
    search_crash_states(search, findings);
  }
  std::vector<std::string> faults;
  for (const CrashFault& fault : findings.faults) faults.push_back(told(fault));
  EXPECT_THAT(faults, IsEmpty());
  const auto text = [](std::size_t count) { return std::to_string(count); };
  stress_report("crash states: " + text(findings.checked) + " states of " + text(findings.runs) +
                " runs, " + text(findings.operations) + " operations, " + text(findings.distinct) +
                " distinct states there, " + text(findings.all_of) + " of " +
                text(findings.points) + " points in full, " + text(findings.rebuilt) +
                " with a corrupt catalog, " + text(findings.resumed) + " resumed by a whole run");
}

}  // namespace
}  // namespace millrace::test
