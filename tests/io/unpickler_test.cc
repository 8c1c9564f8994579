#include "millrace/io/unpickler.h"

#include <gtest/gtest.h>

#include "millrace/io/pickle_walk.h"
#include "millrace/io/pickler.h"
#include "tests/io/support/allocation_meter.h"
#include "tests/io/support/pth_file.h"

namespace millrace::pickle {
namespace {

using namespace std::string_literals;
using test::bytes_of;

Value data(Value::Data value) { return Value(std::move(value)); }

// What a reader may hold at once for n bytes of a hostile pickle.
std::size_t bound(std::size_t n) { return 600 * n + 65'536; }

TEST(Unpickler, ReadsOtherProtocols) {
  // pickle.dumps(value, protocol) of CPython 3.11.
  struct Case {
    const char* name;
    std::string bytes;
    Value value;
  };
  const Case cases[] = {
      {"frame, memoize, short text",
       "\x80\x04\x95\x0c\0\0\0\0\0\0\0]\x94(\x8c\x01"s
       "a\x94h\x01"s
       "K\x01"s
       "e."s,
       Value::list({"a", "a", 1})},
      {"bytes",
       "\x80\x03"s
       "C\x02\xff\x00q\x00."s,
       data(Bytes{"\xff\0"s})},
      {"bytes of protocol 2",
       "\x80\x02"s
       "c_codecs\nencode\nq\x00X\x03\x00\x00\x00\xc3\xbf\x00"s
       "q\x01X\x06\x00\x00\x00latin1q\x02\x86q\x03Rq\x04."s,
       data(Bytes{"\xff\0"s})},
      {"no bytes",
       "\x80\x02"s
       "c__builtin__\nbytes\nq\x00)Rq\x01."s,
       data(Bytes{})},
      {"set", "\x80\x04\x8f\x94(K\x01K\x02\x90."s, data(std::make_shared<Set>(Set{{1, 2}}))},
      {"set of protocol 2",
       "\x80\x02"s
       "c__builtin__\nset\nq\x00]q\x01(K\x01K\x02"s
       "e\x85q\x02Rq\x03."s,
       data(std::make_shared<Set>(Set{{1, 2}}))},
      {"stack global",
       "\x80\x04\x8c\x05torch\x94\x8c\x07"s
       "float32\x94\x93\x94."s,
       data(Global{"torch", "float32"})},
      {"one item",
       "\x80\x02]q\x00K\x05"s
       "a."s,
       Value::list({5})},
      {"long text", "\x80\x04\x8d\x01\0\0\0\0\0\0\0x."s, "x"},
      {"old strings",
       "\x80\x02(U\x01"s
       "aT\x01\0\0\0"s
       "bU\x01\xff"s
       "t."s,
       Value::tuple({"a", "b", data(Bytes{"\xff"})})},
      {"long integers",
       "\x80\x02(\x8a\x00\x8a\x01\xff\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\0"
       "\x8b\x02\0\0\0\0\1t."s,
       Value::tuple({0, -1, data(BigInt{"\xff\xff\xff\xff\xff\xff\xff\xff\0"s}), 256})},
      {"pop, pop mark, dup",
       "\x80\x02]K\x01"s
       "0(K\x02K\x03"s
       "1(0K\x04"s
       "2\x86\x86."s,
       Value::tuple({Value::list(), Value::tuple({4, 4})})},
  };
  for (const Case& each : cases) {
    const auto value = unpickle(bytes_of(each.bytes));
    ASSERT_TRUE(value.ok()) << each.name << ": " << value.fault().text();
    EXPECT_EQ(value.value(), each.value) << each.name << ": " << describe(value.value());
  }
}

TEST(Unpickler, NewObjectWithKeywordsIsACopyregCall) {
  const auto value =
      unpickle(bytes_of("\x80\x04"s
                        "cuser\nT\n)}(\x8c\x01kK\x01u\x92."s));
  ASSERT_TRUE(value.ok()) << value.fault().text();
  const auto& call = *std::get<std::shared_ptr<Call>>(value.value().data);
  EXPECT_EQ(call.function, data(Global{"copyreg", "__newobj_ex__"}));
  EXPECT_EQ(call.args.as_sequence()->size(), 3U);
}

TEST(Unpickler, DottedNamesAreGetattrCalls) {
  const auto value =
      unpickle(bytes_of("\x80\x04\x8c\x01m\x8c\x05"s
                        "A.B.c\x93."s));
  ASSERT_TRUE(value.ok()) << value.fault().text();
  EXPECT_EQ(describe(value.value()),
            "=<__builtin__.getattr>(=<__builtin__.getattr>(<m.A>, 'B'), 'c')");
}

TEST(Unpickler, LegacyModuleIdIsItsClass) {
  const auto value =
      unpickle(bytes_of("\x80\x02(U\x06modulecm\nNet\nU\x01"s
                        "fU\x01stQ)\x81."s));
  ASSERT_TRUE(value.ok()) << value.fault().text();
  EXPECT_EQ(describe(value.value()), "new <m.Net>()");
}

TEST(Unpickler, Python2OrderedDictGetsItsPairs) {
  const auto value =
      unpickle(bytes_of("\x80\x02"s
                        "ccollections\nOrderedDict\n](](U\x01"s
                        "aK\x01"s
                        "ee\x85R."s));
  ASSERT_TRUE(value.ok()) << value.fault().text();
  EXPECT_EQ(*value.value().find("a"), Value(1));
}

TEST(Unpickler, TheLastOfEqualKeysCounts) {
  const auto value =
      unpickle(bytes_of("\x80\x02}(U\x01"s
                        "aK\x01U\x01"s
                        "aK\x02u."s));
  ASSERT_TRUE(value.ok());
  EXPECT_EQ(*value.value().find("a"), Value(2));
}

TEST(Unpickler, NothingIsCalled) {
  const auto value =
      unpickle(bytes_of("\x80\x02"s
                        "cposix\nsystem\nX\x04\0\0\0true\x85R."s));
  ASSERT_TRUE(value.ok());
  EXPECT_EQ(describe(value.value()), "=<posix.system>('true')");
}

TEST(Unpickler, ConsumedAllowsPicklesInARow) {
  const auto two = bytes_of("\x80\x02K\x01.\x80\x02K\x02."s);
  EXPECT_FALSE(unpickle(two).ok());
  std::size_t consumed = 0;
  const auto first = unpickle(two, {}, &consumed);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(consumed, 5U);
  EXPECT_EQ(unpickle(std::span(two).subspan(consumed)).value(), Value(2));
}

struct Hostile {
  const char* name;
  std::string bytes;
  Fault::Kind kind;
};

std::string repeat(std::string_view text, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) out += text;
  return out;
}

std::vector<Hostile> hostile_pickles() {
  using enum Fault::Kind;
  const std::string big = "X\0\0\1\0"s + std::string(65'536, 'x');
  return {
      {"empty", "", truncated},
      {"no stop", "\x80\x02N"s, truncated},
      {"text longer than the file", "\x80\x02X\xff\xff\xff\xff"s, truncated},
      {"text longer than memory", "\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff"s, truncated},
      {"bytes longer than memory", "\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f"s, truncated},
      {"integer longer than the file", "\x80\x02\x8b\xff\xff\xff\x7f"s, truncated},
      {"newer protocol", "\x80\x06N."s, corrupt},
      {"unknown operation", "\x80\x02\xfe."s, corrupt},
      {"text protocol", "I1\n."s, corrupt},
      {"empty stack", "\x80\x02."s, corrupt},
      {"below the mark", "\x80\x02N(\x85t."s, corrupt},
      {"no mark", "\x80\x02Nt."s, corrupt},
      {"left over", "\x80\x02NN."s, corrupt},
      {"mark left over", "\x80\x02(N."s, corrupt},
      {"unset memo", "\x80\x02h\x05."s, corrupt},
      {"odd pairs", "\x80\x02}(Nu."s, corrupt},
      {"pairs into a list", "\x80\x02](NNu."s, corrupt},
      {"items into a dict", "\x80\x02}(NNe."s, corrupt},
      {"items into a number", "\x80\x02K\x01(NNe."s, corrupt},
      {"state of a list", "\x80\x02]}b."s, corrupt},
      {"call of a number", "\x80\x02K\x01)R."s, corrupt},
      {"call without a tuple",
       "\x80\x02"s
       "ca\nb\nNR."s,
       corrupt},
      {"class of numbers", "\x80\x04K\x01K\x02\x93."s, corrupt},
      {"not UTF-8", "\x80\x02X\x01\0\0\0\xff."s, corrupt},
      {"overlong UTF-8", "\x80\x02X\x02\0\0\0\xc0\x80."s, corrupt},
      {"list in itself", "\x80\x02]q\0h\0a."s, corrupt},
      {"cycle of two", "\x80\x02]q\0]q\1h\0a0h\0h\1a."s, corrupt},
      {"cycle left in the memo", "\x80\x02]q\0h\0a0N."s, corrupt},
      {"cycle through a dict", "\x80\x02}q\0(K\x01h\0u."s, corrupt},
      {"cycle through a state",
       "\x80\x02"s
       "ca\nb\n)Rq\0h\0b."s,
       corrupt},
      {"depth by tuples", "\x80\x02N"s + repeat("\x85", 100'000) + ".", limit},
      {"depth by lists", "\x80\x02"s + repeat("]", 50'000) + repeat("a", 49'999) + ".", limit},
      {"depth by persistent ids", "\x80\x02N"s + repeat("Q", 100'000) + ".", limit},
      {"depth that is thrown away", "\x80\x02N"s + repeat("\x85", 100'000) + "0N.", limit},
      {"depth, then cut", "\x80\x02N"s + repeat("\x85", 100'000), truncated},
      {"memo copies of a big text", "\x80\x02("s + big + "q\0"s + repeat("h\0"s, 100'000) + "t.",
       limit},
      {"memo stores of a big text",
       "\x80\x02"s + big + repeat("q\0r\1\0\0\0r\2\0\0\0"s, 50'000) + ".", limit},
      {"dups of a big text", "\x80\x02("s + big + repeat("2", 100'000) + "t.", limit},
      {"dotted names from the memo",
       "\x80\x04(\x8c\x01mq\0\x8c\xc8"s + repeat("a.", 100) + "q\1"s +
           repeat("h\0h\1\x93"s, 20'000) + "t.",
       limit},
      {"sets of a big list",
       "\x80\x02("s + "c__builtin__\nset\nq\0]q\1("s + repeat("N", 20'000) + "e" +
           repeat("h\0h\1\x85R"s, 20'000) + "t.",
       limit},
  };
}

TEST(Unpickler, HostileInputIsAFaultWithinItsMemory) {
  for (const Hostile& each : hostile_pickles()) {
    const auto bytes = bytes_of(each.bytes);
    const test::AllocationMeter meter;
    const auto result = unpickle(bytes);
    EXPECT_LE(meter.peak(), bound(bytes.size())) << each.name;
    ASSERT_FALSE(result.ok()) << each.name << ": " << describe(result.value());
    EXPECT_EQ(result.fault().kind, each.kind) << each.name << ": " << result.fault().text();
    EXPECT_TRUE(result.fault().what.ends_with(".")) << result.fault().what;
  }
}

// Legal, and as wasteful as one byte of input can be.
TEST(Unpickler, MemoryIsProportionalToTheInput) {
  const std::pair<const char*, std::string> cases[] = {
      {"lists", "\x80\x02("s + repeat("]", 100'000) + "t."},
      {"dicts", "\x80\x02("s + repeat("}", 100'000) + "t."},
      {"empty tuples", "\x80\x02("s + repeat(")", 100'000) + "t."},
      {"one-item tuples", "\x80\x02("s + repeat("N\x85", 100'000) + "t."},
      {"nothing", "\x80\x02("s + repeat("N", 100'000) + "t."},
      {"marks", "\x80\x02"s + repeat("(", 100'000) + repeat("1", 100'000) + "N."},
      {"memo", "\x80\x04("s + repeat("N\x94", 100'000) + "t."},
      {"far memo", "\x80\x02Nr\xff\xff\xff\xff."s},
      {"calls", "\x80\x02("s + "ca\nb\nq\0)q\1"s + repeat("h\0h\1R"s, 50'000) + "t."},
      {"persistent ids", "\x80\x02("s + repeat("NQ", 100'000) + "t."},
      {"single items", "\x80\x02]"s + repeat("Na", 100'000) + "."},
  };
  for (const auto& [name, text] : cases) {
    const auto bytes = bytes_of(text);
    const test::AllocationMeter meter;
    const auto result = unpickle(bytes);
    ASSERT_TRUE(result.ok()) << name << ": " << result.fault().text();
    EXPECT_LE(meter.peak(), bound(bytes.size())) << name;
  }
}

TEST(Unpickler, LimitsHold) {
  const auto many = bytes_of("\x80\x02("s + repeat("N", 1'000) + "t.");
  EXPECT_EQ(unpickle(many, {.max_values = 500}).fault().kind, Fault::Kind::limit);
  EXPECT_TRUE(unpickle(many, {.max_values = 1'001}).ok());
  const auto deep = bytes_of("\x80\x02N"s + repeat("\x85", 100) + ".");
  EXPECT_EQ(unpickle(deep, {.max_depth = 99}).fault().kind, Fault::Kind::limit);
  EXPECT_TRUE(unpickle(deep, {.max_depth = 100}).ok());
}

TEST(Unpickler, TheDeepestAllowedTreeCanBeWrittenAgain) {
  const auto value = unpickle(bytes_of("\x80\x02N"s + repeat("\x85", 1'000) + "."));
  ASSERT_TRUE(value.ok());
  EXPECT_TRUE(unpickle(pickle(value.value())).ok());
}

TEST(Unpickler, ManyPathsAreOneTree) {
  // 2^200 paths in 1,000 bytes.
  const auto bytes = bytes_of("\x80\x02]"s + repeat("2\x86", 200) + ".");
  const auto value = unpickle(bytes);
  ASSERT_TRUE(value.ok()) << value.fault().text();
  std::size_t nodes = 0;
  walk(value.value(), [&](const Value&) { ++nodes; });
  EXPECT_EQ(nodes, 201U);
}

TEST(Unpickler, EveryPrefixIsTruncated) {
  Value dict = Value::ordered_dict();
  dict.set("w", make_tensor({"0", DType::kFloat32, 4, 0, {4}, {1}}));
  dict.set("big", data(BigInt{std::string(9, '\1')}));
  const auto bytes = pickle(dict);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const auto result = unpickle(std::span(bytes).first(size));
    ASSERT_FALSE(result.ok()) << size;
    EXPECT_EQ(result.fault().kind, Fault::Kind::truncated) << size;
  }
}

}  // namespace
}  // namespace millrace::pickle
