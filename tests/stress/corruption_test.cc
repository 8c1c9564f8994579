// A checkpoint whose bytes went bad: found, or proved not to matter by comparing all that loads.
//
// By three readers: the one that loads (CheckpointFile), the scan for the newest valid file
// (CheckpointStore), which has to name the file and say why, and a training that resumes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/io/checkpoint_store.h"
#include "millrace/io/local_storage.h"
#include "millrace/io/memory_storage.h"
#include "millrace/io/pickle_walk.h"
#include "millrace/io/pickler.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "tests/stress/damage.h"
#include "tests/support/fake_run.h"
#include "tests/support/images.h"
#include "tests/support/stress.h"
#include "tests/support/temp_dir.h"

namespace millrace::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// Everything that a training takes from a file.
struct Loaded {
  Bytes tree;
  std::map<std::string, Bytes> storages;
  CheckpointIdentity identity;
  std::map<std::string, std::string> sections;
  bool operator==(const Loaded&) const = default;
};

Loaded load(const Storage& storage, std::string_view name) {
  const CheckpointFile file = CheckpointFile::read(storage, name);
  Loaded loaded;
  loaded.tree = pickle::pickle(file.root());
  pickle::walk(file.root(), [&](const pickle::Value& value) {
    const auto tensor = pickle::as_tensor(value);
    if (!tensor) return;
    const auto bytes = file.storage(*tensor);
    loaded.storages[tensor->storage_key].assign(bytes.begin(), bytes.end());
  });
  if (file.record()) {
    loaded.identity = file.record()->identity;
    loaded.sections = file.record()->sections;
  }
  return loaded;
}

// Who found it.
std::string finder(const std::string& reason) {
  static const std::pair<const char*, const char*> kFinders[] = {
      {"CRC-32", "CRC"},
      {"values behind", "CRC"},
      {"own header", "local header"},
      {"reaches into", "local header"},
      {"zip", "zip directory"},
      {"extra fields", "zip directory"},
      {"encrypted", "zip directory"},
      {"compressed by", "zip directory"},
      {"two sizes", "zip directory"},
      {"more than deflate", "zip directory"},
      {"data.pkl", "pickle"},
      {"This is ", "signature"},
  };
  for (const auto& [text, name] : kFinders) {
    if (reason.find(text) != std::string::npos) return name;
  }
  return "tree and record";
}

// Two checkpoints of one run, small, the second to be damaged.
class Corruption : public ::testing::Test {
 protected:
  static constexpr const char* kOld = "epoch_1.pth";
  static constexpr const char* kNew = "epoch_2.pth";

  Corruption() {
    auto run = make(dir_.path() / "run");
    run->options.max_epochs = 2;
    CheckpointHookOptions options{.interval = 1};
    run->parts.hooks.add(std::make_unique<CheckpointHook>(options));
    run->train();
    const LocalStorage files(dir_.path() / "run");
    old_ = read_all(files, kOld);
    new_ = read_all(files, kNew);
    good_ = load(files, kNew);
  }

  static std::unique_ptr<FakeRun> make(const std::filesystem::path& work_dir) {
    auto run = std::make_unique<FakeRun>(work_dir, FakeStrategyOptions{.floats = 24});
    run->options.max_epochs = 3;
    return run;
  }
  std::unique_ptr<MemoryStorage> storage_with(const Bytes& damaged) const {
    auto storage = std::make_unique<MemoryStorage>();
    commit_bytes(*storage, kOld, old_);
    commit_bytes(*storage, kNew, damaged);
    return storage;
  }

  void read(const Damage& damage);
  void resume(const Damage& damage);
  std::string found_by() const;

  TempDir dir_;
  Bytes old_, new_;
  Loaded good_;
  std::map<std::string, std::size_t> found_;
  std::size_t tried_ = 0, unused_ = 0, resumed_ = 0;
  std::optional<std::vector<Bytes>> end_;  // the state of an undisturbed training
};

std::string Corruption::found_by() const {
  std::string text;
  std::size_t all = 0;
  for (const auto& [name, count] : found_) {
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " by " + name;
    all += count;
  }
  return std::to_string(all) + " found (" + text + "), " + std::to_string(unused_) +
         " proved unused";
}

// The reader that loads, and the scan that chooses.
void Corruption::read(const Damage& damage) {
  SCOPED_TRACE(damage.text);
  ++tried_;
  const auto storage = storage_with(damage.bytes);
  std::string refused;
  try {
    EXPECT_TRUE(load(*storage, kNew) == good_) << "loads, and as something else";
  } catch (const Error& error) {
    refused = error.what();
    EXPECT_THAT(refused, HasSubstr(kNew));
  }
  CheckpointStore store(*storage, *storage);
  const CheckpointStore::Scan scan = store.newest_valid();
  if (scan.name == kNew) {
    EXPECT_EQ(refused, "") << "chosen, and then refused";
    EXPECT_EQ(scan.identity, good_.identity);
    ++unused_;
    return;
  }
  EXPECT_EQ(scan.name, kOld);
  ASSERT_THAT(scan.skipped, SizeIs(1)) << "passed over in silence";
  EXPECT_EQ(scan.skipped[0].name, kNew);
  EXPECT_GT(scan.skipped[0].reason.size(), 20u);
  ++found_[finder(scan.skipped[0].reason)];
}

// A whole training, which ends in the same state whichever file it starts from.
void Corruption::resume(const Damage& damage) {
  SCOPED_TRACE(damage.text);
  const std::filesystem::path work_dir = dir_.path() / "resumed";
  const auto run = make(work_dir);
  run->options.resume = Resume::automatic();
  run->parts.storage = storage_with(damage.bytes);
  run->train();
  const auto from = run->log->with("Resumed from ");
  ASSERT_THAT(from, SizeIs(1));
  const auto skipped = run->log->with(std::string("Skipped memory:/") + kNew + ": The file ");
  EXPECT_THAT(from[0], HasSubstr(skipped.empty() ? kNew : kOld));
  const auto state = run->strategy->state();
  if (!end_) end_ = state;
  EXPECT_EQ(state, *end_);
  ++resumed_;
  std::filesystem::remove_all(work_dir);
}

TEST_F(Corruption, EveryByteOfACheckpoint) {
  resume({"nothing", new_});
  const Flips flips{stress_count(new_.size(), SIZE_MAX), stress_is_whole()};
  each_flip(new_, flips, stress_seed(), [this](const Damage& damage) { read(damage); });
  stress_report("corruption: " + std::to_string(tried_) + " changes of a byte in a checkpoint of " +
                std::to_string(new_.size()) + " bytes, " + found_by());
  EXPECT_GT(found_["CRC"], 0u);
  EXPECT_GT(found_["zip directory"], 0u);
  EXPECT_GT(found_["local header"], 0u);
}

TEST_F(Corruption, AResumeFallsBackAndSaysSo) {
  resume({"nothing", new_});
  const Flips flips{stress_count(400, SIZE_MAX), false};
  each_flip(new_, flips, stress_seed() + 1, [this](const Damage& damage) { resume(damage); });
  stress_report("corruption: " + std::to_string(resumed_) +
                " trainings resumed past a damaged checkpoint, or from one with an unused byte "
                "flipped");
}

TEST_F(Corruption, CutZeroedAndLongerFiles) {
  const auto call = [this](const Damage& damage) { read(damage); };
  each_truncation(new_, call);
  EXPECT_EQ(unused_, 0u) << "a file that was cut is never whole";
  each_zeroed_block(new_, call);
  each_garbage_tail(new_, stress_seed(), call);
  stress_report("corruption: " + std::to_string(tried_) +
                " checkpoints cut, zeroed in blocks or with a tail of garbage, " + found_by());
}

// What is inside counts, not the name.
TEST_F(Corruption, FilesUnderEachOthersNames) {
  MemoryStorage storage;
  commit_bytes(storage, kOld, new_);
  commit_bytes(storage, kNew, old_);
  CheckpointStore store(storage, storage);
  EXPECT_EQ(store.newest_valid().name, kOld);
  EXPECT_TRUE(load(storage, kOld) == good_);
}

}  // namespace
}  // namespace millrace::test
