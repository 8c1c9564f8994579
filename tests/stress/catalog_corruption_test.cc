// The catalog and last_checkpoint, whose bytes went bad: seen and rebuilt, or without effect, and
// never the reason why a file goes that has to stay.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/io/catalog.h"
#include "millrace/io/checkpoint_store.h"
#include "millrace/io/local_storage.h"
#include "millrace/io/memory_storage.h"
#include "tests/stress/damage.h"
#include "tests/support/fake_run.h"
#include "tests/support/images.h"
#include "tests/support/scripted_metric.h"
#include "tests/support/stress.h"
#include "tests/support/temp_dir.h"

namespace millrace::test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

CheckpointHookOptions hook_options() {
  CheckpointHookOptions options{.interval = 1};
  options.save_best = {"acc"};
  options.max_keep_ckpts = 2;
  return options;
}

// Every row that the catalog had at some time.
std::vector<CatalogRow> history_of(const Bytes& log) {
  std::vector<CatalogRow> rows;
  std::size_t records = 0;
  for (std::size_t size = 1; size <= log.size(); ++size) {
    const CatalogLog part = decode_catalog(std::span(log).first(size));
    if (part.records == records) continue;
    records = part.records;
    rows.insert(rows.end(), part.rows.begin(), part.rows.end());
  }
  return rows;
}

// What five epochs left: the two newest files, the best one, one saved on demand and pinned, and
// two pinned later, the last of them after the newest file was saved.
class CatalogCorruption : public ::testing::Test {
 protected:
  CatalogCorruption() {
    const auto run = make(5);
    auto hook = std::make_unique<CheckpointHook>(hook_options());
    CheckpointHook* const saves = hook.get();
    run->parts.hooks.add(std::move(hook));
    run->parts.hooks.add(on_event<AfterTrainIter>([&, saves](const AfterTrainIter& e, RunContext&) {
      if (e.at.iter + 1 == 6) run->runner().checkpoint_now(true);
      if (e.at.iter + 1 == 14) saves->pin("epoch_3.pth");
    }));
    run->parts.hooks.add(on_event<CheckpointCommitted>(
        [saves](const CheckpointCommitted& e, RunContext&) {
          if (e.row.name == "epoch_5.pth") saves->pin("epoch_4.pth");
        },
        "Pins"));
    run->train();
    const LocalStorage storage(work_dir());
    for (const std::string& name : names_of(storage)) {
      if (name.ends_with(".pth")) files_[name] = read_all(storage, name);
    }
    good_ = read_all(storage, Catalog::kName);
    rows_ = decode_catalog(good_).rows;
    history_ = history_of(good_);
  }

  std::filesystem::path work_dir() const { return dir_.path() / "run"; }
  std::unique_ptr<FakeRun> make(std::int64_t epochs) const {
    auto run = std::make_unique<FakeRun>(work_dir(), FakeStrategyOptions{.floats = 24});
    run->options.max_epochs = epochs;
    run->parts.val = loader(fake_dataset(4), {.batch_size = 2});
    // The second epoch is the best one, in whatever part of the list a run begins.
    const std::vector<double> scores = {.1, .9, .3, .2, .4};
    run->parts.metrics.push_back(std::make_unique<ScriptedMetric>("acc", scores));
    return run;
  }
  std::unique_ptr<MemoryStorage> storage_with(const Bytes& catalog) const {
    auto storage = std::make_unique<MemoryStorage>();
    for (const auto& [name, bytes] : files_) commit_bytes(*storage, name, bytes);
    commit_bytes(*storage, Catalog::kName, catalog);
    return storage;
  }

  enum class Rows { kAll, kEarlier };  // that a log may have beside unknown ones
  void open(const Damage& damage, Rows allowed);
  void resume(const Damage& damage, const std::set<std::string>& may_go);
  std::string counts() const {
    return std::to_string(found_) + " found and told, " + std::to_string(unused_) +
           " without effect, " + std::to_string(earlier_) + " whole logs of an earlier time";
  }

  TempDir dir_;
  std::map<std::string, Bytes> files_;
  Bytes good_;
  std::vector<CatalogRow> rows_, history_;
  std::size_t tried_ = 0, found_ = 0, unused_ = 0, earlier_ = 0, resumed_ = 0;
};

bool is_unknown(const CatalogRow& row) {
  return !row.scores_known && row.scores.empty() && !row.pinned;
}

void CatalogCorruption::open(const Damage& damage, Rows allowed) {
  SCOPED_TRACE(damage.text);
  ++tried_;
  const auto storage = storage_with(damage.bytes);
  Catalog catalog(*storage);
  const std::vector<std::string> notes = catalog.open();
  if (catalog.rows() == rows_) {
    ++(notes.empty() ? unused_ : found_);
  } else {
    ++(notes.empty() ? earlier_ : found_);
    if (allowed == Rows::kAll) {
      EXPECT_FALSE(notes.empty()) << "differs in silence";
    }
  }
  EXPECT_EQ(catalog.rows().size(), files_.size());
  for (const CatalogRow& row : catalog.rows()) {
    EXPECT_TRUE(files_.contains(row.name)) << row.name;
    const std::vector<CatalogRow>& known_rows = allowed == Rows::kAll ? rows_ : history_;
    const bool known = std::find(known_rows.begin(), known_rows.end(), row) != known_rows.end();
    EXPECT_TRUE(known || is_unknown(row)) << row.name << " says what is not so";
  }
  EXPECT_THAT(Catalog(*storage).open(), IsEmpty()) << "was not put right";
}

// One epoch more, after which only what the options say may be gone.
void CatalogCorruption::resume(const Damage& damage, const std::set<std::string>& may_go) {
  SCOPED_TRACE(damage.text);
  const auto run = make(6);
  run->options.resume = Resume::automatic();
  run->parts.storage = storage_with(damage.bytes);
  run->parts.hooks.add(std::make_unique<CheckpointHook>(hook_options()));
  std::vector<std::string> gone;
  run->parts.hooks.add(on_event<CheckpointRemoved>(
      [&](const CheckpointRemoved& e, RunContext&) { gone.push_back(e.row.name); }, "Removals"));
  run->train();
  EXPECT_THAT(run->log->with("Resumed from memory:/epoch_5.pth"), SizeIs(1));
  for (const std::string& name : gone) EXPECT_TRUE(may_go.contains(name)) << name << " is gone";
  ++resumed_;
}

TEST_F(CatalogCorruption, TheStartIsWhatThisFileSays) {
  std::vector<std::string> names;
  for (const auto& [name, bytes] : files_) names.push_back(name);
  EXPECT_THAT(names, ::testing::ElementsAre("best_acc_epoch_2.pth", "epoch_3.pth", "epoch_4.pth",
                                            "epoch_5.pth", "iter_6.pth"));
  for (const CatalogRow& row : rows_) {
    const bool pinned =
        row.name == "epoch_3.pth" || row.name == "epoch_4.pth" || row.name == "iter_6.pth";
    EXPECT_EQ(row.pinned, pinned) << row.name;
  }
  resume({"nothing", good_}, {});
}

TEST_F(CatalogCorruption, EveryByte) {
  const Flips flips{SIZE_MAX, stress_is_whole()};
  each_flip(good_, flips, stress_seed(), [this](const Damage& d) { open(d, Rows::kAll); });
  stress_report("corruption: " + std::to_string(tried_) + " changes of a byte in a catalog of " +
                std::to_string(good_.size()) + " bytes, " + counts());
  EXPECT_EQ(unused_, 0u) << "a checksum covers every byte";
}

TEST_F(CatalogCorruption, NoByteMakesARunRemoveAFileThatStays) {
  const Flips flips{stress_count(300, SIZE_MAX), false};
  each_flip(good_, flips, stress_seed() + 1, [this](const Damage& d) { resume(d, {}); });
  each_zeroed_block(good_, [this](const Damage& d) { resume(d, {}); });
  stress_report("corruption: " + std::to_string(resumed_) +
                " trainings resumed with a damaged catalog, no file removed that stays");
}

TEST_F(CatalogCorruption, CutZeroedAndLonger) {
  each_zeroed_block(good_, [this](const Damage& d) { open(d, Rows::kAll); });
  each_garbage_tail(good_, stress_seed(), [this](const Damage& d) { open(d, Rows::kEarlier); });
  // Between two records a cut leaves a whole log: that of an earlier time.
  each_truncation(good_, [this](const Damage& d) { open(d, Rows::kEarlier); });
  stress_report("corruption: " + std::to_string(tried_) +
                " catalogs cut, zeroed in blocks or with a tail of garbage, " + counts());
}

// A crash can cut the last record alone: the pin that was being written.
TEST_F(CatalogCorruption, ACutLosesOnlyThePinThatWasBeingWritten) {
  const std::size_t last = catalog_record(CatalogPin{"epoch_4.pth", true}).size();
  each_truncation(good_, [&](const Damage& d) {
    if (d.bytes.size() >= good_.size() - last) resume(d, {"epoch_4.pth"});
  });
  EXPECT_EQ(resumed_, last);
}

// Rows belong to the save in a file, not to its name.
TEST_F(CatalogCorruption, FilesUnderEachOthersNames) {
  std::swap(files_["epoch_4.pth"], files_["epoch_5.pth"]);
  const auto storage = storage_with(good_);
  Catalog catalog(*storage);
  EXPECT_THAT(catalog.open(), ::testing::Contains(HasSubstr("void")));
  for (const char* name : {"epoch_4.pth", "epoch_5.pth"}) {
    ASSERT_NE(catalog.find(name), nullptr);
    EXPECT_TRUE(is_unknown(*catalog.find(name)));
  }
}

// ---- last_checkpoint

class PointerCorruption : public CatalogCorruption {
 protected:
  void write(const std::filesystem::path& directory, const Bytes& pointer) const {
    std::filesystem::create_directories(directory);
    std::ofstream(directory / CheckpointStore::kPointerName, std::ios::binary)
        .write(reinterpret_cast<const char*>(pointer.data()),
               static_cast<std::streamsize>(pointer.size()));
  }
  void each_damage(const WithDamage& call) const {
    const Flips flips{SIZE_MAX, true};
    const Bytes good = read_all(LocalStorage(work_dir()), CheckpointStore::kPointerName);
    each_flip(good, flips, stress_seed(), call);
    each_truncation(good, call);
    each_zeroed_block(good, call);
    each_garbage_tail(good, stress_seed(), call);
    call({"a page of one letter", Bytes(4096, std::byte{'a'})});
    call({"a path of 5000 bytes", bytes_of_text("/" + std::string(5000, 'b') + "/epoch_5.pth")});
    call({"many folders", bytes_of_text([] {
            std::string path;
            for (int i = 0; i < 3000; ++i) path += "/c";
            return path;
          }())});
  }
};

// Where the directory has checkpoints nobody asks it.
TEST_F(PointerCorruption, HasNoEffectBesideCheckpoints) {
  std::size_t tried = 0;
  const std::filesystem::path other = dir_.path() / "beside";
  each_damage([&](const Damage& damage) {
    if (tried++ % 23 != 0) return;
    SCOPED_TRACE(damage.text);
    write(other, damage.bytes);
    auto run = std::make_unique<FakeRun>(other, FakeStrategyOptions{.floats = 24});
    run->options.max_epochs = 5;
    run->options.resume = Resume::automatic();
    run->parts.storage = storage_with(good_);
    run->train();
    EXPECT_THAT(run->log->with("Resumed from memory:/epoch_5.pth"), SizeIs(1));
    std::filesystem::remove_all(other);
  });
}

// Where it is all there is, the run takes the very file it names, or starts afresh and says so.
TEST_F(PointerCorruption, LeadsToAWholeCheckpointOrNowhere) {
  std::size_t followed = 0, told = 0, silent = 0;
  const std::filesystem::path other = dir_.path() / "moved";
  each_damage([&](const Damage& damage) {
    SCOPED_TRACE(damage.text);
    write(other, damage.bytes);
    auto run = std::make_unique<FakeRun>(other, FakeStrategyOptions{.floats = 24});
    run->options.max_epochs = 5;
    run->options.resume = Resume::automatic();
    EXPECT_NO_THROW(run->train());
    const bool skipped = !run->log->with("Skipped what last_checkpoint names").empty();
    const bool resumed = !run->log->with("Resumed from " + work_dir().string()).empty();
    EXPECT_FALSE(skipped && resumed);
    EXPECT_NE(resumed, !run->log->with("Did not find a checkpoint").empty());
    ++(resumed ? followed : skipped ? told : silent);
    std::filesystem::remove_all(other);
  });
  EXPECT_LE(silent, 2u) << "a pointer that is empty, or begins with a newline, names nothing";
  stress_report("corruption: " + std::to_string(followed + told + silent) +
                " damaged last_checkpoint files, " + std::to_string(told) + " told, " +
                std::to_string(followed) + " led to a whole checkpoint, " + std::to_string(silent) +
                " were empty");
}

}  // namespace
}  // namespace millrace::test
