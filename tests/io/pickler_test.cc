#include "millrace/io/pickler.h"

#include <gtest/gtest.h>

#include <limits>

#include "millrace/io/unpickler.h"
#include "millrace/runtime/async/error.h"
#include "tests/io/support/pth_file.h"

namespace millrace::pickle {
namespace {

using test::bytes_of;

Value data(Value::Data value) { return Value(std::move(value)); }

Value round_trip(const Value& value) {
  auto result = unpickle(pickle(value));
  if (!result) {
    ADD_FAILURE() << result.fault().text();
    return {};
  }
  return std::move(result).value();
}

TEST(Pickler, PlainValuesComeBack) {
  std::vector<Value> values{Value(),
                            true,
                            false,
                            0.5,
                            -0.0,
                            1e300,
                            "",
                            "text",
                            "na\xc3\xafve",
                            std::string("a\0b", 3),
                            std::string(70'000, 'x'),
                            Value::tuple({}),
                            Value::list(),
                            Value::dict(),
                            data(Global{"torch", "float32"}),
                            data(Bytes{}),
                            data(Bytes{std::string("\0\x7f\x80\xff", 4)}),
                            data(Bytes{"abc"}),
                            data(BigInt{std::string(8, '\0') + "\x01"}),
                            data(BigInt{std::string(300, '\x80')})};
  for (const std::int64_t number :
       {std::int64_t{0}, std::int64_t{255}, std::int64_t{256}, std::int64_t{65'535},
        std::int64_t{65'536}, std::int64_t{2'147'483'647}, std::int64_t{2'147'483'648},
        std::int64_t{-1}, std::int64_t{-2'147'483'648}, std::int64_t{-2'147'483'649},
        std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min()}) {
    values.emplace_back(number);
  }
  for (const Value& value : values) {
    EXPECT_EQ(round_trip(value), value) << describe(value);
    EXPECT_EQ(round_trip(Value::list({value, value})), Value::list({value, value}));
  }
}

TEST(Pickler, ContainersComeBack) {
  for (int size = 0; size < 6; ++size) {
    std::vector<Value> items;
    Value dict = Value::dict(), ordered = Value::ordered_dict();
    for (int i = 0; i < size; ++i) {
      items.emplace_back(i);
      dict.set(i, "x"), ordered.set("k" + std::to_string(i), i);
    }
    auto set = std::make_shared<Set>(Set{items});
    for (const Value& value : {Value::list(items), Value::tuple(items), data(set), dict, ordered}) {
      EXPECT_EQ(round_trip(value), value) << describe(value);
    }
  }
}

TEST(Pickler, UnknownObjectsComeBack) {
  auto call = std::make_shared<Call>();
  call->function = data(Global{"numpy.core.multiarray", "_reconstruct"});
  call->args =
      Value::tuple({data(Global{"numpy", "ndarray"}), Value::tuple({0}), data(Bytes{"b"})});
  call->state = Value::tuple({1, Value::tuple({2}), false, data(Bytes{"\x01\x02"})});
  auto bound = std::make_shared<Call>();
  bound->function = data(Global{"__builtin__", "getattr"});
  bound->args = Value::tuple({data(Global{"user", "History"}), "min"});
  auto object = std::make_shared<Call>();
  object->function = data(Global{"user", "History"});
  object->args = Value::tuple({});
  object->new_object = true;
  object->items = {1, 2};
  object->pairs = {{"k", data(call)}};
  object->state = Value::dict();
  object->state.set("min", data(bound));
  auto called = std::make_shared<Call>();  // the result of a call, called
  called->function = data(bound);
  called->args = Value::tuple({1});
  for (const Value& value : {data(call), data(bound), data(object), data(called)}) {
    EXPECT_EQ(round_trip(value), value) << describe(value);
  }
}

TEST(Pickler, SharedNodesStayShared) {
  Value shared = Value::list({1});
  Value tensor = make_tensor({"0", DType::kFloat32, 1, 0, {1}, {1}});
  const Value back = round_trip(Value::list({shared, shared, tensor, tensor, Value::list({1})}));
  const auto& items = *back.as_sequence();
  EXPECT_EQ(std::get<std::shared_ptr<List>>(items[0].data),
            std::get<std::shared_ptr<List>>(items[1].data));
  EXPECT_EQ(std::get<std::shared_ptr<Call>>(items[2].data),
            std::get<std::shared_ptr<Call>>(items[3].data));
  EXPECT_NE(std::get<std::shared_ptr<List>>(items[0].data),
            std::get<std::shared_ptr<List>>(items[4].data));
}

TEST(Pickler, ManyMemoEntriesUseLongReferences) {
  std::vector<Value> nodes;
  for (int i = 0; i < 700; ++i) nodes.push_back(Value::list({i}));
  std::vector<Value> twice = nodes;
  twice.insert(twice.end(), nodes.begin(), nodes.end());
  const Value value = Value::list(twice);
  EXPECT_EQ(round_trip(value), value);
}

TEST(Pickler, SharingDoesNotMultiply) {
  Value value = Value::list({"leaf"});
  for (int level = 0; level < 200; ++level) value = Value::tuple({value, value});
  EXPECT_LT(pickle(value).size(), 2'000U);
  EXPECT_EQ(round_trip(value), value);
}

TEST(Pickler, BytesDependOnTheTreeAlone) {
  const auto make = [] {
    Value shared = Value::list({"a", "b"});
    Value dict = Value::dict();
    for (int i = 0; i < 50; ++i) dict.set("key" + std::to_string(i), Value::tuple({shared, "a"}));
    return dict;
  };
  const Value first = make(), second = make();
  const Value holder = *first.find("key7");  // one more owner of the nodes must not matter
  EXPECT_EQ(pickle(first), pickle(second));
  EXPECT_EQ(pickle(round_trip(first)), pickle(first));
}

TEST(Pickler, RenamesStorages) {
  const Value tensor = make_tensor({"94837", DType::kFloat32, 2, 0, {2}, {1}});
  const auto back = unpickle(pickle(Value::list({tensor, "94837"}), {{"94837", "0"}}));
  ASSERT_TRUE(back.ok()) << back.fault().text();
  const auto& items = *back.value().as_sequence();
  EXPECT_EQ(as_tensor(items[0])->storage_key, "0");
  EXPECT_EQ(items[1], Value("94837"));
  EXPECT_EQ(as_tensor(tensor)->storage_key, "94837");
}

TEST(Pickler, TooDeepOrCyclicIsAnError) {
  Value deep = 1;
  for (int i = 0; i < 5'000; ++i) deep = Value::list({deep});
  EXPECT_THROW(pickle(deep), Error);
  auto tuple = std::make_shared<Tuple>();
  tuple->items.push_back(data(tuple));
  EXPECT_THROW(pickle(data(tuple)), Error);
  tuple->items.clear();
}

TEST(Pickler, WritesOnlyWhatTheSafeReaderKnows) {
  Value dict = Value::ordered_dict();
  dict.set("n", std::int64_t{1} << 40);
  EXPECT_EQ(pickle(Value::list({1})), bytes_of("\x80\x02](K\x01"
                                               "e."));
  const auto big = pickle(data(BigInt{std::string(9, '\x01')}));
  EXPECT_EQ(big[2], std::byte{0x8a});
}

}  // namespace
}  // namespace millrace::pickle
