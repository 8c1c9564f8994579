#include "millrace/runtime/engine/staging.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>
#include <thread>

#include "millrace/runtime/async/error.h"
#include "tests/support/hold.h"
#include "tests/support/images.h"

namespace millrace {
namespace {

constexpr std::size_t kLarge = 3 * Staging::kSmall;

std::vector<CapturedStorage> storages_of(const std::vector<std::vector<std::byte>>& live) {
  std::vector<CapturedStorage> storages;
  for (const auto& bytes : live) storages.push_back({bytes});
  return storages;
}

std::vector<std::byte> staged_bytes(Snapshot& snapshot) {
  snapshot.wait_all();
  const auto bytes = snapshot.wait_bytes(0, snapshot.layout().storages_end());
  return {bytes.begin(), bytes.end()};
}

TEST(Staging, EveryModeGivesTheSameBytes) {
  const std::vector<std::vector<std::byte>> live = {test::pattern(kLarge, 1),
                                                    test::pattern(10, 2),
                                                    {},
                                                    test::pattern(kLarge + 7, 3),
                                                    test::pattern(Staging::kSmall, 4)};
  Staging staging;
  std::vector<std::vector<std::byte>> files;
  for (const StageMode mode : {StageMode::kLazy, StageMode::kEager, StageMode::kBlocking}) {
    const auto snapshot = staging.begin(storages_of(live), mode);
    if (mode != StageMode::kLazy) {
      EXPECT_TRUE(snapshot->staged()) << "copied before begin() returns";
      EXPECT_TRUE(staging.gate().open());
    }
    files.push_back(staged_bytes(*snapshot));
    staging.gate().writable_all();
  }
  EXPECT_EQ(files[0], files[1]);
  EXPECT_EQ(files[0], files[2]);
}

TEST(Staging, LazyCopiesWhatMayChangeAtAnyTimeAndWhatIsSmallBeforeItReturns) {
  std::vector<std::vector<std::byte>> live = {test::pattern(kLarge, 1), test::pattern(kLarge, 2),
                                              test::pattern(Staging::kSmall, 3)};
  const auto original = live;
  test::Hold hold;
  const auto train = std::this_thread::get_id();
  Staging staging([&](std::size_t) {
    if (std::this_thread::get_id() != train) hold.enter();
  });
  auto storages = storages_of(live);
  storages[1].mutation = Mutation::kAnyTime;
  const auto snapshot = staging.begin(storages, StageMode::kLazy);
  hold.wait_until_entered();
  EXPECT_FALSE(snapshot->staged());
  EXPECT_FALSE(staging.gate().open());
  std::fill(live[1].begin(), live[1].end(), std::byte{0});  // no gate: as forward does
  std::fill(live[2].begin(), live[2].end(), std::byte{0});
  hold.release();
  const std::vector<std::byte> bytes = staged_bytes(*snapshot);
  for (std::size_t i = 0; i < live.size(); ++i) {
    const auto part = std::span(bytes).subspan(snapshot->layout().data_offset(i), live[i].size());
    EXPECT_TRUE(std::equal(part.begin(), part.end(), original[i].begin())) << i;
  }
}

TEST(Staging, AStateOfSmallStoragesNeedsNoCopier) {
  const std::vector<std::vector<std::byte>> live = {test::pattern(10, 1), test::pattern(20, 2)};
  Staging staging;
  const auto snapshot = staging.begin(storages_of(live), StageMode::kLazy);
  EXPECT_TRUE(snapshot->staged());
  EXPECT_TRUE(staging.gate().open());
}

TEST(Staging, TheArenaIsReused) {
  const std::vector<std::vector<std::byte>> live = {test::pattern(kLarge, 1)};
  Staging staging;
  staging.reserve(kLarge + 1000);
  const auto first = staging.begin(storages_of(live), StageMode::kEager);
  const auto second = staging.begin(storages_of(live), StageMode::kEager);
  EXPECT_EQ(first->arena().data(), second->arena().data());
  EXPECT_GE(first->arena().size(), Staging::kTailRoom);
}

TEST(Staging, ASnapshotLeftBehindIsFinishedByTheNext) {
  const std::vector<std::vector<std::byte>> live = {test::pattern(kLarge, 1),
                                                    test::pattern(kLarge, 2)};
  Staging staging;
  const auto first = staging.begin(storages_of(live), StageMode::kLazy);
  const auto second = staging.begin(storages_of(live), StageMode::kEager);
  EXPECT_TRUE(first->staged());
  EXPECT_TRUE(second->staged());
}

TEST(StageMode, NamesAndParsing) {
  for (const StageMode mode :
       {StageMode::kAuto, StageMode::kLazy, StageMode::kEager, StageMode::kBlocking}) {
    EXPECT_EQ(parse_stage_mode(stage_mode_name(mode)), mode);
  }
  try {
    parse_stage_mode("blokcing");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.nearest(), "blocking");
  }
}

}  // namespace
}  // namespace millrace
