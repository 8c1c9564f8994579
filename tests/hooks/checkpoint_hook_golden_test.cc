// The files a run leaves, held against runs of the reference (tests/golden/checkpoint_files.json):
// names, last_checkpoint, meta and top-level keys. Only what is there after the run is compared,
// because files are given up later here, after their successor is durable.
#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/hooks/param_scheduler_hook.h"
#include "millrace/io/local_storage.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "tests/support/fake_run.h"
#include "tests/support/images.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using nlohmann::json;

struct Found {
  std::int64_t epoch = 0, iter = 0;
  std::vector<std::string> keys;
  bool operator==(const Found&) const = default;
};
void PrintTo(const Found& found, std::ostream* out) {
  *out << "epoch " << found.epoch << " iter " << found.iter << " with";
  for (const std::string& key : found.keys) *out << " " << key;
}

CheckpointHookOptions options_of(const json& entry, StageMode mode) {
  CheckpointHookOptions options;
  options.by_epoch = entry["by_epoch"];
  options.interval = entry["interval"];
  options.max_keep_ckpts = entry["max_keep_ckpts"];
  options.save_begin = entry["save_begin"];
  options.save_last = entry["save_last"];
  options.save_optimizer = entry["save_optimizer"];
  options.save_param_scheduler = entry["save_param_scheduler"];
  options.filename_tmpl = entry["filename_tmpl"];
  options.mode = mode;
  return options;
}

std::map<std::string, Found> expected_files(const json& entry) {
  std::map<std::string, Found> files;
  for (const json& file : entry["files"]) {
    Found& found = files[file["name"]];
    found = {file["epoch"], file["iter"], file["keys"]};
  }
  return files;
}

std::map<std::string, Found> files_in(const LocalStorage& storage) {
  std::map<std::string, Found> files;
  for (const ObjectInfo& object : storage.list()) {
    if (!object.name.ends_with(".pth")) continue;
    const CheckpointFile file = CheckpointFile::read(storage, object.name);
    const pickle::Value& meta = *file.root().find("meta");
    Found& found = files[object.name];
    found.epoch = meta.find("epoch")->as_int().value();
    found.iter = meta.find("iter")->as_int().value();
    for (const auto& [key, value] : *file.root().as_mapping()) {
      found.keys.push_back(*key.as_string());
    }
    std::sort(found.keys.begin(), found.keys.end());
  }
  return files;
}

class GoldenFiles : public ::testing::TestWithParam<StageMode> {};
INSTANTIATE_TEST_SUITE_P(, GoldenFiles,
                         ::testing::Values(StageMode::kLazy, StageMode::kEager,
                                           StageMode::kBlocking),
                         [](const auto& mode) { return std::string(stage_mode_name(mode.param)); });

TEST_P(GoldenFiles, AreTheReferences) {
  std::ifstream file(MILLRACE_GOLDEN "/checkpoint_files.json");
  const json entries = json::parse(file);
  ASSERT_EQ(entries.size(), 21u);
  for (const json& entry : entries) {
    SCOPED_TRACE(entry.dump());
    const test::TempDir dir;
    test::FakeRun run(dir.path() / "run");
    (entry["by_epoch"] ? run.options.max_epochs : run.options.max_iters) = entry["max"];
    run.parts.param_schedulers.push_back(linear_lr({}));
    run.parts.hooks.add(std::make_unique<ParamSchedulerHook>());
    run.parts.hooks.add(std::make_unique<CheckpointHook>(options_of(entry, GetParam())));
    run.train();

    const LocalStorage storage(dir.path() / "run");
    EXPECT_EQ(files_in(storage), expected_files(entry));
    const std::string last = entry["last"];
    if (last.empty()) {
      EXPECT_FALSE(std::filesystem::exists(dir.path() / "run" / "last_checkpoint"));
    } else {
      EXPECT_EQ(test::read_text(storage, "last_checkpoint"), (dir.path() / "run" / last).string());
    }
  }
}

}  // namespace
}  // namespace millrace
