#include "millrace/io/pickle_value.h"

#include <gtest/gtest.h>

#include <limits>
#include <stdexcept>

#include "millrace/io/pickle_walk.h"

namespace millrace::pickle {
namespace {

TEST(Value, ConvertsAsPythonWould) {
  EXPECT_EQ(Value(true).as_int(), 1);
  EXPECT_EQ(Value(3).as_double(), 3.0);
  EXPECT_EQ(Value(true).as_double(), 1.0);
  EXPECT_EQ(Value(1).as_bool(), std::nullopt);
  EXPECT_EQ(Value(1.5).as_int(), std::nullopt);
  EXPECT_EQ(Value("x").as_double(), std::nullopt);
  EXPECT_EQ(*Value("x").as_string(), "x");
  EXPECT_EQ(Value(1).as_string(), nullptr);
}

TEST(Value, DictsSetFindAndErase) {
  for (Value dict : {Value::dict(), Value::ordered_dict()}) {
    dict.set("a", 1);
    dict.set(2, "two");
    dict.set("a", 3);
    ASSERT_NE(dict.as_mapping(), nullptr);
    EXPECT_EQ(dict.as_mapping()->size(), 2U);
    EXPECT_EQ(*dict.find("a"), Value(3));
    EXPECT_EQ(*dict.find(2), Value("two"));
    EXPECT_EQ(dict.find("b"), nullptr);
    EXPECT_TRUE(dict.erase("a"));
    EXPECT_FALSE(dict.erase("a"));
    EXPECT_EQ(dict.find("a"), nullptr);
  }
}

TEST(Value, EmptyOrderedDictIsAMapping) {
  EXPECT_NE(Value::ordered_dict().as_mapping(), nullptr);
  EXPECT_EQ(Value::list().as_mapping(), nullptr);
  EXPECT_EQ(Value(1).find("a"), nullptr);
}

TEST(Value, WrongKindIsALogicError) {
  Value list = Value::list();
  Value number = 1;
  EXPECT_THROW(list.set("a", 1), std::logic_error);
  EXPECT_THROW(number.append(1), std::logic_error);
  EXPECT_THROW(set_attribute(list, "a", 1), std::logic_error);
}

TEST(Value, EqualityGoesByContent) {
  const auto make = [](int last) {
    Value dict = Value::dict();
    dict.set("list", Value::list({1, Value::tuple({2.5, last})}));
    return dict;
  };
  EXPECT_EQ(make(1), make(1));
  EXPECT_NE(make(1), make(2));
  EXPECT_NE(Value::list({1}), Value::tuple({1}));
  EXPECT_NE(Value::list({1}), Value::list({1, 2}));
  EXPECT_NE(Value::list({1, 2}), Value::list({1}));
  EXPECT_NE(Value(1), Value(1.0));
  EXPECT_EQ(Value(std::numeric_limits<double>::quiet_NaN()),
            Value(std::numeric_limits<double>::quiet_NaN()));
}

TEST(Value, EqualityOfManyPathsIsFast) {
  Value a = 1, b = 1, c = 2;
  for (int level = 0; level < 300; ++level) {
    a = Value::list({a, a});
    b = Value::list({b, b});
    c = Value::list({c, c});
  }
  EXPECT_EQ(a, b);
  EXPECT_NE(a, c);
}

TEST(Value, AttributesAreTheBuildState) {
  Value object = Value::ordered_dict();
  EXPECT_EQ(attribute(object, "_metadata"), nullptr);
  set_attribute(object, "_metadata", 5);
  set_attribute(object, "_metadata", 6);
  EXPECT_EQ(*attribute(object, "_metadata"), Value(6));
  EXPECT_EQ(object.as_mapping()->size(), 0U);
  EXPECT_EQ(attribute(Value(1), "_metadata"), nullptr);
}

TEST(Value, DescribeIsShort) {
  Value dict = Value::dict();
  dict.set("a", Value::list({1, 2.5, Value(), true}));
  EXPECT_EQ(describe(dict), "{'a': [1, 2.5, None, True]}");
  Value deep = 1;
  for (int i = 0; i < 1'000; ++i) deep = Value::list({deep, deep});
  EXPECT_LE(describe(deep, 50).size(), 53U);
}

TensorRef plain() { return {"0", DType::kFloat32, 12, 0, {3, 4}, {4, 1}, false}; }

TEST(Tensor, RoundTrip) {
  TensorRef tensor = plain();
  tensor.requires_grad = true;
  EXPECT_EQ(as_tensor(make_tensor(tensor)), tensor);
  EXPECT_EQ(tensor.numel(), 12);
  EXPECT_TRUE(claims_tensor(make_tensor(tensor)));
}

TEST(Tensor, SeenThroughAParameter) {
  auto parameter = std::make_shared<Call>();
  parameter->function = Value(Value::Data(Global{"torch._utils", "_rebuild_parameter"}));
  parameter->args = Value::tuple({make_tensor(plain()), true, Value::ordered_dict()});
  TensorRef expected = plain();
  expected.requires_grad = true;
  EXPECT_EQ(as_tensor(Value(Value::Data(parameter))), expected);
}

TEST(Tensor, SeenThroughASubclass) {
  const Value inner = make_tensor(plain());
  const auto& call = *std::get<std::shared_ptr<Call>>(inner.data);
  auto subclass = std::make_shared<Call>();
  subclass->function = Value(Value::Data(Global{"torch._tensor", "_rebuild_from_type_v2"}));
  subclass->args = Value::tuple(
      {call.function, Value(Value::Data(Global{"user", "Tensor"})), call.args, Value::dict()});
  EXPECT_EQ(as_tensor(Value(Value::Data(subclass))), plain());
}

struct BadTensor {
  const char* name;
  TensorRef tensor;
};

TEST(Tensor, OutsideItsStorageIsNone) {
  constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
  const BadTensor cases[] = {
      {"one element too far", {"0", DType::kFloat32, 11, 0, {3, 4}, {4, 1}}},
      {"offset past the end", {"0", DType::kFloat32, 12, 1, {3, 4}, {4, 1}}},
      {"negative offset", {"0", DType::kFloat32, 12, -1, {2}, {1}}},
      {"negative size", {"0", DType::kFloat32, 12, 0, {-2}, {1}}},
      {"negative stride", {"0", DType::kFloat32, 12, 11, {2}, {-1}}},
      {"negative storage", {"0", DType::kFloat32, -1, 0, {0}, {1}}},
      {"stride overflows", {"0", DType::kFloat32, 12, 0, {3, 3}, {kHuge, 1}}},
      {"offset overflows", {"0", DType::kFloat32, 12, kHuge, {2}, {1}}},
      {"elements overflow", {"0", DType::kFloat32, 12, 0, {kHuge, 4}, {0, 0}}},
      {"bytes overflow", {"0", DType::kFloat32, 12, 0, {kHuge / 2}, {0}}},
      {"ranks differ", {"0", DType::kFloat32, 12, 0, {3, 4}, {4}}},
      {"scalar of an empty storage", {"0", DType::kFloat32, 0, 0, {}, {}}},
  };
  for (const BadTensor& each : cases) {
    EXPECT_EQ(as_tensor(make_tensor(each.tensor)), std::nullopt) << each.name;
  }
}

TEST(Tensor, EmptyAndScalarAndExpandedAreInside) {
  const TensorRef cases[] = {
      {"0", DType::kFloat32, 0, 0, {0, 3}, {3, 1}},
      {"0", DType::kFloat32, 0, 0, {0, std::numeric_limits<std::int64_t>::max(), 3}, {1, 1, 1}},
      {"0", DType::kFloat32, 1, 0, {}, {}},
      {"0", DType::kFloat32, 1, 0, {1000}, {0}},
  };
  for (const TensorRef& tensor : cases) EXPECT_EQ(as_tensor(make_tensor(tensor)), tensor);
}

TEST(Tensor, StorageOrderIsThatOfFirstUse) {
  TensorRef b = plain(), a = plain();
  b.storage_key = "7", a.storage_key = "3";
  EXPECT_EQ(storage_order(Value::list({make_tensor(b), make_tensor(a), make_tensor(b)})),
            (std::vector<std::string>{"7", "3"}));
}

TEST(DType, StorageClassesMapBack) {
  for (int i = 0; i <= static_cast<int>(DType::kComplex128); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_of_storage_class(dtype_storage_class(dtype)), dtype);
    EXPECT_GT(dtype_size(dtype), 0U);
  }
  EXPECT_EQ(dtype_of_storage_class("QInt8Storage"), std::nullopt);
}

}  // namespace
}  // namespace millrace::pickle
