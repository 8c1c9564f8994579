#include "millrace/events/hook_error.h"

#include "millrace/runtime/async/error.h"
#include "tests/events/fixture.h"

namespace millrace::test {
namespace {

using Errors = BusTest;

TEST_F(Errors, NamesEventAndHookAndStopsTheStage) {
  const auto a = every(10, letter('a'));
  const auto b = every(
      20, [](const Ping&) { throw StorageError("write", "x.pth", 0, "full"); }, "Saver");
  const auto c = every(30, letter('c'));
  const auto d = awaited(40, slow_letter('d'));
  try {
    publish();
    FAIL();
  } catch (const HookError& error) {
    EXPECT_STREQ(error.what(), "ping in Saver: write x.pth: full");
    EXPECT_EQ(error.event(), "ping");
    EXPECT_EQ(error.hook(), "Saver");
    EXPECT_THROW(error.rethrow_nested(), StorageError);
  }
  EXPECT_EQ(log_, "a");
}

TEST_F(Errors, TheChannelStaysUsable) {
  bool fail = true;
  const auto a = every(10, [&](const Ping&) {
    if (fail) throw Error("once");
  });
  const auto b = every(20, letter('b'));
  EXPECT_THROW(publish(), HookError);
  fail = false;
  EXPECT_EQ(publish_log(), "b");
}

TEST_F(Errors, WrapsWhatIsNoStdException) {
  const auto a = every(
      10, [](const Ping&) { throw 42; }, "Odd");
  try {
    publish();
    FAIL();
  } catch (const HookError& error) {
    EXPECT_STREQ(error.what(), "ping in Odd: an exception that is no std::exception");
    EXPECT_THROW(error.rethrow_nested(), int);
  }
}

Task<> publish_pong(EventBus& bus) {
  const std::string text = "t";
  co_await bus.publish(Pong{text});
}

TEST_F(Errors, NestedPublishesNameTheChainAndKeepOneRootCause) {
  const auto a = awaited<Ping>(
      50, [this](const Ping&) { return publish_pong(bus_); }, "Outer");
  const auto b = every<Pong>(
      50, [](const Pong&) { throw ConfigError("lr", "is bad"); }, "Inner");
  try {
    publish();
    FAIL();
  } catch (const HookError& error) {
    EXPECT_STREQ(error.what(), "ping in Outer > pong in Inner: lr: is bad");
    EXPECT_EQ(error.event(), "pong");
    EXPECT_EQ(error.hook(), "Inner");
    EXPECT_THROW(error.rethrow_nested(), ConfigError);
  }
}

TEST_F(Errors, AHookMayCatchTheErrorOfItsOwnPublish) {
  const auto a = every<Ping>(50, [this](const Ping&) {
    const std::string text = "t";
    try {
      (void)bus_.publish(Pong{text});
    } catch (const HookError&) {
      log_ += 'k';
    }
  });
  const auto b = every<Pong>(50, [](const Pong&) { throw Error("inner"); });
  EXPECT_EQ(publish_log(), "k");
}

}  // namespace
}  // namespace millrace::test
