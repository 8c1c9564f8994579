// Round trips of cereal's types, and what happens to those who lie about their length.
#include "millrace/io/state_archive.h"

#include <gmock/gmock.h>

#include <array>
#include <cereal/types/array.hpp>
#include <cereal/types/deque.hpp>
#include <cereal/types/forward_list.hpp>
#include <cereal/types/list.hpp>
#include <cereal/types/map.hpp>
#include <cereal/types/memory.hpp>
#include <cereal/types/optional.hpp>
#include <cereal/types/set.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/tuple.hpp>
#include <cereal/types/unordered_map.hpp>
#include <cereal/types/unordered_set.hpp>
#include <cereal/types/valarray.hpp>
#include <cereal/types/variant.hpp>
#include <cereal/types/vector.hpp>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <unordered_map>
#include <variant>

#include "tests/io/support/allocation_meter.h"

namespace millrace {
namespace {

template <class... T>
std::string written(const T&... values) {
  std::string bytes;
  StateWriter out(bytes);
  out(values...);
  return bytes;
}

template <class T>
T read(std::string_view bytes) {
  T value{};
  StateReader in(bytes);
  in(value);
  EXPECT_EQ(in.left(), 0u);
  return value;
}

template <class T>
void expect_round_trip(const T& value) {
  EXPECT_EQ(read<T>(written(value)), value);
}

enum class Color : std::uint16_t { kRed = 7 };

struct Big {  // large in memory, one byte in the record
  std::uint8_t kind = 0;
  std::array<char, 1000> cache{};
  template <class Archive>
  void serialize(Archive& archive) {
    archive(kind);
  }
  bool operator==(const Big&) const = default;
};

struct Node {
  std::unique_ptr<Node> next;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(next);
  }
};

TEST(StateArchive, RoundTrips) {
  expect_round_trip(std::int8_t{-3});
  expect_round_trip(true);
  expect_round_trip(0.1);
  expect_round_trip(Color::kRed);
  expect_round_trip(std::string("a\0b", 3));
  expect_round_trip(std::u16string(u"text"));
  expect_round_trip(std::vector<double>{1, 2.5});
  expect_round_trip(std::vector<bool>{true, false, true});
  expect_round_trip(std::vector<std::string>{"x", "", "a longer one than fits without a heap"});
  expect_round_trip(std::vector<std::vector<std::int32_t>>{{1, 2}, {}, {3}});
  expect_round_trip(std::vector<Big>(3));
  expect_round_trip(std::deque<std::int64_t>{1, 2, 3});
  expect_round_trip(std::list<std::string>{"a", "b"});
  expect_round_trip(std::forward_list<float>{1, 2, 3});
  expect_round_trip(std::map<std::string, std::vector<std::int16_t>>{{"a", {1}}, {"b", {}}});
  expect_round_trip(std::set<std::string>{"a", "b"});
  expect_round_trip(std::unordered_map<std::string, double>{{"a", 1}, {"b", 2}});
  expect_round_trip(std::unordered_set<std::int64_t>{1, 2, 3});
  expect_round_trip(std::array<std::int32_t, 3>{1, 2, 3});
  expect_round_trip(std::optional<std::string>("here"));
  expect_round_trip(std::optional<std::string>());
  expect_round_trip(std::variant<int, std::string>("text"));
  expect_round_trip(std::tuple<int, std::string>{1, "a"});
  const auto numbers = read<std::valarray<double>>(written(std::valarray<double>{1, 2}));
  EXPECT_EQ(numbers.sum(), 3);
  EXPECT_EQ(*read<std::unique_ptr<std::string>>(written(std::make_unique<std::string>("a"))), "a");
  EXPECT_EQ(*read<std::shared_ptr<std::string>>(written(std::make_shared<std::string>("a"))), "a");
  EXPECT_EQ(read<std::shared_ptr<std::string>>(written(std::shared_ptr<std::string>())), nullptr);
}

TEST(StateArchive, LoadingReplacesWhatWasThere) {
  std::vector<std::string> texts{"old", "old", "old"};
  std::unordered_set<int> numbers{9};
  const std::string bytes = written(std::vector<std::string>{"new"}, std::unordered_set<int>{1});
  StateReader in(bytes);
  in& texts;
  in >> numbers;
  EXPECT_EQ(texts, (std::vector<std::string>{"new"}));
  EXPECT_EQ(numbers, (std::unordered_set<int>{1}));
}

TEST(StateArchive, TheBytesAreAsTheHeaderSays) {
  EXPECT_EQ(written(std::uint32_t{1}, true, std::string("ab")),
            std::string("\1\0\0\0\1\2\0\0\0\0\0\0\0ab", 15));
}

// ---- hostile input

template <class T>
std::string refusal(std::string_view bytes, std::size_t allowed = 4096) {
  const test::AllocationMeter meter;
  std::string text = "no error";
  try {
    T value{};
    StateReader in(bytes);
    in(value);
  } catch (const RecordError& error) {
    text = error.what();
  } catch (const cereal::Exception& error) {
    text = error.what();
  }
  EXPECT_LT(meter.peak(), allowed);
  return text;
}

template <class T>
class Counted : public ::testing::Test {};
using Containers =
    ::testing::Types<std::string, std::u32string, std::vector<double>, std::vector<bool>,
                     std::vector<std::string>, std::vector<Big>, std::vector<std::vector<double>>,
                     std::deque<Big>, std::list<Big>, std::forward_list<Big>, std::valarray<double>,
                     std::set<std::string>, std::map<std::string, Big>,
                     std::unordered_map<std::string, Big>, std::unordered_set<std::int64_t>,
                     std::unordered_multiset<std::string>, std::map<int, std::vector<Big>>>;
TYPED_TEST_SUITE(Counted, Containers);

TYPED_TEST(Counted, ACountBeyondTheRecordIsRefusedBeforeAnythingIsAllocated) {
  for (const std::uint64_t count :
       {std::uint64_t{9}, std::uint64_t{1} << 20, std::uint64_t{1} << 31, std::uint64_t{1} << 40,
        std::uint64_t{1} << 61, UINT64_MAX}) {
    EXPECT_THAT(refusal<TypeParam>(written(count, std::uint64_t{0})),
                ::testing::HasSubstr("a count of " + std::to_string(count) + " exceeds the 8"))
        << count;
  }
}

// A count that the bytes could just hold as the smallest elements, while there are none.
TYPED_TEST(Counted, AnElementThatIsNotThereIsNotAllocatedFor) {
  const std::uint64_t left = 1000;
  std::string bytes = written(left);
  bytes.append(left, '\xFF');  // as counts of inner containers: absurd; as numbers: fine
  const test::AllocationMeter meter;
  try {
    TypeParam value{};
    StateReader in(bytes);
    in(value);
  } catch (const std::exception&) {
  }
  // What those bytes are worth as elements of the widest kind, with a growing vector's copies.
  EXPECT_LT(meter.peak(), 4 * left * sizeof(Big));
}

TEST(StateArchive, NumbersAreCheckedExactly) {
  EXPECT_THAT(refusal<std::vector<double>>(written(std::uint64_t{2}, 1.0)),
              ::testing::HasSubstr("a count of 2 exceeds the 8 bytes left"));
  EXPECT_EQ(refusal<std::vector<double>>(written(std::uint64_t{1}, 1.0)), "no error");
  EXPECT_THAT(refusal<std::int64_t>("1234"), ::testing::HasSubstr("8 bytes are needed and 4 are"));
  EXPECT_THAT(refusal<bool>("\2"), ::testing::HasSubstr("truth value"));
  EXPECT_NE(refusal<std::vector<bool>>(written(std::uint64_t{1}, std::uint8_t{3})), "no error");
}

TEST(StateArchive, ElementsOfOneByteMayBeLargeInMemory) {
  const auto value = read<std::vector<Big>>(written(std::vector<Big>(100)));
  EXPECT_EQ(value.size(), 100u);
}

TEST(StateArchive, DeepNestingIsRefusedAndNotARecursionWithoutEnd) {
  const std::string deep(100'000, '\1');  // each byte: a node is there
  EXPECT_THAT(refusal<Node>(deep, 200'000), ::testing::HasSubstr("nested too deeply"));
  Node list;
  Node* last = &list;
  for (int i = 0; i < 150; ++i) last = (last->next = std::make_unique<Node>()).get();
  const std::string bytes = written(list);
  StateReader in(bytes);
  Node back;
  in(back);
  EXPECT_EQ(in.left(), 0u);
}

TEST(StateArchive, SharedPointersToOneObjectAreRefusedOnBothSides) {
  const auto object = std::make_shared<std::int32_t>(1);
  EXPECT_THROW(written(object, object), RecordError);
  struct Pair {
    std::shared_ptr<std::int32_t> number;
    std::shared_ptr<std::string> text;
    void serialize(StateReader& in) { in(number, text); }
  };
  // The second one claims to be the first, which is of another type.
  std::string bytes = written(object, std::uint32_t{1});
  EXPECT_THAT(refusal<Pair>(bytes), ::testing::HasSubstr("refers to another one"));
}

struct Everything {
  std::map<std::string, std::vector<double>> series{{"loss", {1, 2, 3}}, {"acc", {}}};
  std::vector<std::string> names{"a", "bb"};
  std::deque<std::optional<std::int32_t>> queue{1, {}, 3};
  std::unordered_map<std::int64_t, std::set<std::string>> index{{1, {"x"}}, {2, {}}};
  std::variant<std::int64_t, std::string, std::vector<bool>> which = "text";
  std::unique_ptr<std::string> note = std::make_unique<std::string>("note");
  std::list<Big> big = std::list<Big>(2);
  template <class Archive>
  void serialize(Archive& archive) {
    archive(series, names, queue, index, which, note, big);
  }
};

// Damage of every kind: it is an error or another state, never a crash or much memory.
TEST(StateArchive, MutatedAndRandomBytes) {
  const std::string good = written(Everything());
  std::mt19937 random(7);
  const auto draw = [&random](std::size_t below) { return random() % below; };
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = good;
    if (round % 3 == 0) {
      bytes.resize(draw(2 * good.size()));
      for (char& c : bytes) c = static_cast<char>(draw(4) == 0 ? random() : 0);
    }
    for (std::size_t n = draw(4); n > 0 && !bytes.empty(); --n) {
      bytes[draw(bytes.size())] = static_cast<char>(random());
    }
    if (draw(4) == 0) bytes.resize(draw(bytes.size() + 1));
    const test::AllocationMeter meter;
    try {
      Everything value;
      StateReader in(bytes);
      in(value);
    } catch (const RecordError&) {
      ++refused;
    } catch (const cereal::Exception&) {
      ++refused;
    }
    ASSERT_LT(meter.peak(), 8192 + 1200 * bytes.size()) << round;  // sizeof(Big) for a byte
  }
  EXPECT_GT(refused, 5000);
  EXPECT_LT(refused, 20'000);
}

TEST(StateArchive, EveryTruncationIsRefused) {
  const std::string good = written(Everything());
  for (std::size_t length = 0; length < good.size(); ++length) {
    EXPECT_NE(refusal<Everything>(std::string_view(good).substr(0, length), 20'000), "no error")
        << length;
  }
}

}  // namespace
}  // namespace millrace
