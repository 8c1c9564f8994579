// Twenty times, a process that trains, saves and rotates is killed at a moment nobody chose. Each
// time the newest checkpoint it had called committed is there and sound, and the next process
// continues from there.
#include <gmock/gmock.h>

#include <random>
#include <sstream>
#include <thread>

#include "millrace/io/checkpoint_store.h"
#include "millrace/io/local_storage.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "tests/support/temp_dir.h"
#include "tests/torch/support/child.h"

namespace millrace {
namespace {

struct Life {  // what a process said before it died
  std::int64_t resumed_at = -1;
  std::int64_t last_iter = 0;
  std::uint64_t last_committed = 0;  // generation
  std::int64_t committed_iter = 0;
};

void note(const std::string& line, Life& life) {
  std::istringstream words(line);
  std::string what;
  words >> what;
  if (what == "resumed") words >> life.resumed_at;
  if (what == "iter") words >> life.last_iter;
  if (what == "committed") words >> life.last_committed >> life.committed_iter;
}

std::vector<std::string> hidden_files(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.')) names.push_back(name);
  }
  return names;
}

// Lives until it has said `lines` lines about its training and the scheduler has come by `turns`
// times.
Life live_and_be_killed(const std::vector<std::string>& command, int lines, int turns) {
  test::Child child(command);
  Life life;
  int said = 0;
  std::string last;
  while (said < lines) {
    const auto line = child.read_line();
    if (!line) {
      ADD_FAILURE() << "ended by itself with status " << child.wait() << " after: " << last;
      break;
    }
    last = *line;
    note(*line, life);
    if (!line->starts_with("log ")) ++said;
  }
  for (int i = 0; i < turns; ++i) std::this_thread::yield();
  child.kill();
  while (const auto line = child.read_line()) note(*line, life);
  child.wait();
  return life;
}

TEST(Kill, TwentyTimesNothingCommittedIsLost) {
  const test::TempDir folder;
  const auto command =
      test::trainer({"work_dir=" + folder.path().string(), "epochs=100000", "save=iter",
                     "interval=3", "keep=2", "width=192", "resume=auto", "mode=lazy"});
  LocalStorage storage(folder.path());
  CheckpointStore store(storage, storage);
  std::mt19937 random(20240229);
  std::int64_t expected_start = 0;
  int with_leftovers = 0;
  for (int kill = 0; kill < 20; ++kill) {
    SCOPED_TRACE("kill " + std::to_string(kill));
    const int lines = std::uniform_int_distribution(3, 60)(random);
    const int turns = std::uniform_int_distribution(0, 2000)(random);
    const Life life = live_and_be_killed(command, lines, turns);
    ASSERT_EQ(life.resumed_at, expected_start);

    if (!hidden_files(folder.path()).empty()) ++with_leftovers;
    const CheckpointStore::Scan scan = store.newest_valid();
    EXPECT_THAT(scan.skipped, testing::IsEmpty());  // nothing half-written has a final name
    ASSERT_TRUE(scan.found() || life.last_committed == 0);
    if (!scan.found()) continue;
    EXPECT_GE(scan.identity.generation, life.last_committed);
    EXPECT_GE(scan.identity.iter, life.committed_iter);
    EXPECT_TRUE(scan.name.starts_with("iter_")) << scan.name;
    const auto file = CheckpointFile::read(storage, scan.name);
    EXPECT_EQ(file.root().find("meta")->find("iter")->as_int(), scan.identity.iter);
    EXPECT_NE(file.root().find("optimizer"), nullptr);
    expected_start = scan.identity.iter;
  }
  EXPECT_GT(expected_start, 20);  // the lives added up
  RecordProperty("kills_that_left_temporary_files", with_leftovers);

  // The last process ends by itself, and leaves two checkpoints and nothing hidden.
  auto ending = command;
  ending[2] = "epochs=" + std::to_string(expected_start / 10 + 2);
  const auto result = test::run_child(ending);
  EXPECT_TRUE(result.ended_well());
  EXPECT_THAT(hidden_files(folder.path()), testing::IsEmpty());
  std::vector<std::string> checkpoints;
  for (const ObjectInfo& info : storage.list()) {
    if (info.name.ends_with(".pth")) checkpoints.push_back(info.name);
  }
  EXPECT_EQ(checkpoints.size(), 2u) << testing::PrintToString(checkpoints);
}

}  // namespace
}  // namespace millrace
