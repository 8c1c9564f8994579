#include "millrace/runtime/engine/hook_state.h"

#include <gmock/gmock.h>

#include <cereal/types/map.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/vector.hpp>
#include <cstring>
#include <random>

#include "tests/io/support/allocation_meter.h"

namespace {

// By the free functions that cereal also finds.
struct Outside {
  int value = 0;
};
template <class Archive>
void serialize(Archive& archive, Outside& object, std::uint32_t version) {
  archive(object.value);
  object.value += 100 * static_cast<int>(version);
}

struct Split {
  int value = 0;
  mutable std::uint32_t saved = 99, loaded = 99;
  template <class Archive>
  void save(Archive& archive, std::uint32_t version) const {
    saved = version;
    archive(value);
  }
  template <class Archive>
  void load(Archive& archive, std::uint32_t version) {
    loaded = version;
    archive(value);
  }
};

}  // namespace

CEREAL_CLASS_VERSION(Outside, 3)
CEREAL_CLASS_VERSION(Split, 6)

namespace millrace {
namespace {

using ::testing::HasSubstr;

// One hook, in the two versions of its program.
class Ema1 final : public StatefulHook<Ema1> {
 public:
  static constexpr std::uint32_t kStateVersion = 1;
  template <class Archive>
  void serialize(Archive& archive, std::uint32_t) {
    archive(average);
  }
  std::string_view name() const override { return "Ema"; }
  void subscribe(Subscriptions&) override {}
  double average = 0;
};

class Ema2 final : public StatefulHook<Ema2> {
 public:
  static constexpr std::uint32_t kStateVersion = 2;
  std::string_view name() const override { return "Ema"; }
  void subscribe(Subscriptions&) override {}
  double average = 0;
  std::map<std::string, std::vector<std::int64_t>> steps;
  std::uint32_t version = 0;

 private:
  friend class cereal::access;
  template <class Archive>
  void serialize(Archive& archive, std::uint32_t stored) {
    version = stored;
    archive(average);
    if (stored >= 2) archive(steps);
  }
};

template <class T>
std::string load_error(T& hook, std::string_view bytes) {
  try {
    hook.load_state(bytes);
    return "no error";
  } catch (const RecordError& error) {
    return error.what();
  }
}

TEST(StatefulHook, RoundTrip) {
  Ema2 saved;
  saved.average = 0.25;
  saved.steps = {{"a", {1, 2}}, {"b", {}}};
  Ema2 loaded;
  loaded.load_state(saved.save_state());
  EXPECT_EQ(loaded.average, 0.25);
  EXPECT_EQ(loaded.steps, saved.steps);
  EXPECT_EQ(loaded.version, 2u);
}

TEST(StatefulHook, AnOlderStateComesWithItsVersion) {
  Ema1 saved;
  saved.average = 0.5;
  Ema2 loaded;
  loaded.load_state(saved.save_state());
  EXPECT_EQ(loaded.average, 0.5);
  EXPECT_EQ(loaded.version, 1u);
}

TEST(StatefulHook, ANewerStateIsRefusedWithNamesVersionsAndWhatToDo) {
  Ema1 loaded;
  loaded.average = 7;
  EXPECT_EQ(load_error(loaded, Ema2().save_state()),
            "the state of the hook 'Ema' has version 2, and this program knows versions up to 1. "
            "Resume with a program at least as new as the one that saved it, or without the hook "
            "'Ema', whose state then stays in the checkpoints");
  EXPECT_EQ(loaded.average, 7);
}

TEST(StatefulHook, BytesThatAreLeftOverAreAnError) {
  Ema1 loaded;
  EXPECT_THAT(load_error(loaded, Ema1().save_state() + "x"),
              ::testing::AllOf(HasSubstr("the state of the hook 'Ema', version 1, is damaged"),
                               HasSubstr("1 bytes are left over")));
}

TEST(StatefulHook, BytesOfAnotherKindAreNamedAsSuch) {
  Ema1 loaded;
  for (const char* bytes : {"", "MRHS", "12", "some bytes of an older hook"}) {
    EXPECT_THAT(load_error(loaded, bytes), HasSubstr("was not written by StatefulHook")) << bytes;
  }
}

TEST(StatefulHook, EveryTruncationIsAnError) {
  Ema2 saved;
  saved.steps = {{"a", {1, 2}}};
  const std::string good = saved.save_state();
  for (std::size_t length = 0; length < good.size(); ++length) {
    Ema2 loaded;
    EXPECT_NE(load_error(loaded, good.substr(0, length)), "no error") << length;
  }
}

TEST(StatefulHook, HostileLengthsAllocateNothing) {
  Ema2 saved;
  saved.steps = {{"name", {1, 2}}};
  const std::string good = saved.save_state();
  // header 8, average 8; then the map's size, the key's and the vector's
  for (const std::size_t at : {16u, 24u, 36u}) {
    for (const std::uint64_t count : {UINT64_MAX, std::uint64_t{1} << 33, std::uint64_t{1} << 61}) {
      std::string bad = good;
      std::memcpy(bad.data() + at, &count, sizeof count);
      Ema2 loaded;
      const test::AllocationMeter meter;
      EXPECT_THAT(load_error(loaded, bad), HasSubstr("a count of " + std::to_string(count)));
      EXPECT_LT(meter.peak(), 8192u);
    }
  }
}

TEST(StatefulHook, MutatedBytes) {
  Ema2 saved;
  saved.steps = {{"first", {1, 2, 3}}, {"second", {}}};
  const std::string good = saved.save_state();
  std::mt19937 random(11);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = good;
    for (int n = 0; n < 3; ++n) bytes[random() % bytes.size()] = static_cast<char>(random());
    if (random() % 4 == 0) bytes.resize(random() % (bytes.size() + 1));
    Ema2 loaded;
    const test::AllocationMeter meter;
    load_error(loaded, bytes);  // or another state; never another exception
    ASSERT_LT(meter.peak(), 16'384u) << round;
  }
}

// ---- objects

TEST(SavedState, KeepsThePlainTypesOfCereal) {
  std::map<std::string, std::int64_t> counts{{"a", 1}};
  const auto state = saved_state(counts);
  const std::string bytes = state->save();
  counts = {{"b", 2}};
  state->load("counts", bytes);
  EXPECT_EQ(counts, (std::map<std::string, std::int64_t>{{"a", 1}}));
}

TEST(SavedState, FindsVersionsAndFunctionsAsCerealDoes) {
  Outside outside{5};
  const std::string bytes = saved_state(outside)->save();
  EXPECT_EQ(static_cast<unsigned char>(bytes[4]), 3u);
  outside.value = 0;
  saved_state(outside)->load("outside", bytes);
  EXPECT_EQ(outside.value, 305);

  Split split;
  split.value = 8;
  const std::string split_bytes = saved_state(split)->save();
  Split back;
  saved_state(back)->load("split", split_bytes);
  EXPECT_EQ(back.value, 8);
  EXPECT_EQ(split.saved, 6u);
  EXPECT_EQ(back.loaded, 6u);
}

TEST(SavedState, ErrorsNameTheObject) {
  std::int64_t number = 0;
  std::string bytes = saved_state(number)->save();
  bytes[4] = 9;  // a version from the future
  try {
    saved_state(number)->load("count", bytes);
    FAIL();
  } catch (const RecordError& error) {
    EXPECT_THAT(error.what(), HasSubstr("the state of the object 'count' has version 9, and this "
                                        "program knows versions up to 0"));
  }
}

}  // namespace
}  // namespace millrace
