#include "millrace/runtime/engine/message_hub.h"

#include <gmock/gmock.h>

#include <cstring>

#include "millrace/io/record_stream.h"
#include "tests/io/support/allocation_meter.h"

namespace millrace {
namespace {

using pickle::Value;

TEST(MessageHub, ScalarsKeepTheirOrderAndTheirAddress) {
  MessageHub hub;
  HistoryBuffer& first = hub.scalar("train/loss");
  for (int i = 0; i < 100; ++i) hub.scalar("x" + std::to_string(i)).update(i);
  first.update(3);
  EXPECT_EQ(&hub.scalar("train/loss"), &first);
  EXPECT_EQ(hub.find_scalar("train/loss")->current(), 3);
  EXPECT_EQ(hub.find_scalar("unknown"), nullptr);
  EXPECT_EQ(hub.scalars().size(), 101u);
  EXPECT_EQ(hub.scalars()[0].name, "train/loss");
  EXPECT_EQ(hub.scalars()[100].name, "x99");
}

TEST(MessageHub, KeepsTheNewestEntriesOfAScalar) {
  MessageHub hub(3);
  for (int i = 0; i < 100; ++i) hub.scalar("train/loss").update(i);
  EXPECT_EQ(hub.find_scalar("train/loss")->size(), 3u);
  EXPECT_EQ(hub.find_scalar("train/loss")->mean(), 98);
}

TEST(MessageHub, InfoIsNoneUntilWritten) {
  MessageHub hub;
  EXPECT_EQ(hub.find_info("epoch"), nullptr);
  EXPECT_TRUE(hub.info("epoch").is_none());
  hub.info("epoch") = 3;
  EXPECT_EQ(hub.find_info("epoch")->as_int(), 3);
  hub.pop_info("epoch");
  hub.pop_info("epoch");
  EXPECT_EQ(hub.find_info("epoch"), nullptr);
}

// The three keys that the reference's load_state_dict asserts.
TEST(MessageHub, PythonStateHasTheReferencesShapeAndNoHistory) {
  MessageHub hub;
  hub.scalar("train/loss").update(1);
  hub.info("iter") = 11;
  hub.info("name") = "run";
  const Value state = hub.python_state();
  ASSERT_EQ(state.as_mapping()->size(), 3u);
  EXPECT_TRUE(state.find("log_scalars")->as_mapping()->empty());
  EXPECT_EQ(state.find("runtime_info")->find("iter")->as_int(), 11);
  EXPECT_EQ(*state.find("runtime_info")->find("name")->as_string(), "run");
  EXPECT_EQ(state.find("resumed_keys")->find("iter")->as_bool(), true);
  EXPECT_EQ(state.find("resumed_keys")->as_mapping()->size(), 2u);
}

TEST(MessageHub, PythonStateMerges) {
  MessageHub saved;
  saved.info("iter") = 11;
  MessageHub hub;
  hub.info("iter") = 1;
  hub.info("mine") = 2;
  hub.load_python_state(saved.python_state());
  EXPECT_EQ(hub.find_info("iter")->as_int(), 11);
  EXPECT_EQ(hub.find_info("mine")->as_int(), 2);
  for (const Value& foreign : {Value(), Value(3), Value::list(), Value::dict()}) {
    hub.load_python_state(foreign);
  }
  Value odd = Value::dict();
  Value info = Value::dict();
  info.set(7, "a key that is no name");
  odd.set("runtime_info", info);
  hub.load_python_state(odd);
  EXPECT_EQ(hub.find_info("iter")->as_int(), 11);
}

TEST(MessageHub, HistoryRoundTripKeepsTheNewest) {
  MessageHub hub;
  for (int i = 0; i < 5000; ++i) hub.scalar("train/loss").update(i * 0.1, 2);
  hub.scalar("val/acc").update(0.5);
  hub.scalar("empty");
  MessageHub back;
  back.scalar("val/acc").update(99);
  ASSERT_TRUE(back.load_history(hub.save_history()).ok());
  const HistoryBuffer* loss = back.find_scalar("train/loss");
  ASSERT_NE(loss, nullptr);
  EXPECT_EQ(loss->size(), MessageHub::kSavedHistory);
  EXPECT_EQ(loss->current(), 4999 * 0.1);
  EXPECT_EQ(loss->mean(10), hub.find_scalar("train/loss")->mean(10));
  EXPECT_EQ(back.find_scalar("val/acc")->size(), 1u);
  EXPECT_EQ(back.find_scalar("val/acc")->current(), 0.5);
  EXPECT_TRUE(back.find_scalar("empty")->empty());
}

std::string one_scalar() {
  MessageHub hub;
  hub.scalar("loss").update(1);
  return hub.save_history();
}

TEST(MessageHub, EveryTruncationIsAFault) {
  const std::string good = one_scalar();
  for (std::size_t length = 0; length < good.size(); ++length) {
    MessageHub hub;
    const auto loaded = hub.load_history(std::string_view(good).substr(0, length));
    ASSERT_FALSE(loaded.ok()) << length;
    EXPECT_EQ(loaded.fault().where, "hub");
  }
}

// Layout: endianness, number of scalars, length of the name, name, number of values ...
TEST(MessageHub, HostileLengthsAreAFaultAndNotAnAllocation) {
  const std::string good = one_scalar();
  for (const std::size_t at : {1u, 9u, 21u, 37u}) {
    for (const std::uint64_t length :
         {std::uint64_t{1} << 62, UINT64_MAX, std::uint64_t{1} << 33}) {
      std::string bad = good;
      std::memcpy(bad.data() + at, &length, sizeof length);
      MessageHub hub;
      const test::AllocationMeter meter;
      EXPECT_FALSE(hub.load_history(bad).ok()) << at << " " << length;
      EXPECT_LT(meter.peak(), 100'000u) << at << " " << length;
    }
  }
}

TEST(MessageHub, AFaultChangesNothing) {
  RecordWriter out;
  out(std::uint64_t{2}, std::string("loss"), std::vector<double>{7}, std::vector<double>{1},
      std::string("acc"), std::vector<double>{1, 2}, std::vector<double>{1});
  MessageHub hub;
  hub.scalar("loss").update(3);
  EXPECT_FALSE(hub.load_history(std::move(out).take()).ok());
  EXPECT_EQ(hub.find_scalar("loss")->current(), 3);
  EXPECT_EQ(hub.find_scalar("acc"), nullptr);
}

TEST(MessageHub, TheNumberOfScalarsMayNotExceedWhatTheBytesCouldHold) {
  RecordWriter out;
  out(std::uint64_t{2}, std::string(), std::vector<double>{}, std::vector<double>{});
  MessageHub hub;
  const auto loaded = hub.load_history(std::move(out).take());
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(loaded.fault().what, ::testing::HasSubstr("a length of 2 exceeds the 24 bytes left"));
}

TEST(MessageHub, BytesBehindTheLastScalarAreAFault) {
  MessageHub hub;
  EXPECT_FALSE(hub.load_history(one_scalar() + "x").ok());
}

TEST(MessageHub, AsManyCountsAsValues) {
  RecordWriter out;
  out(std::uint64_t{1}, std::string("loss"), std::vector<double>{1, 2}, std::vector<double>{1});
  MessageHub hub;
  const auto loaded = hub.load_history(std::move(out).take());
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(loaded.fault().what, ::testing::HasSubstr("differ in number"));
}

}  // namespace
}  // namespace millrace
