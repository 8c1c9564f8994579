#include "millrace/runtime/async/task_scope.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/async/suspend.h"
#include "tests/support/run_task.h"

namespace millrace {
namespace {

Task<> note(std::string& log, char c, int yields) {
  for (int i = 0; i < yields; ++i) co_await yield();
  log += c;
}

Task<> fail_after(int yields, std::string text) {
  for (int i = 0; i < yields; ++i) co_await yield();
  throw Error(text);
}

Task<> until_stopped(std::stop_token stop, std::string& log) {
  while (!stop.stop_requested()) co_await yield();
  log += 's';
}

Task<> check_order(std::string& log) {
  TaskScope scope(co_await asio::this_coro::executor);
  scope.spawn(note(log, 'b', 0));
  scope.spawn(note(log, 'd', 5));
  scope.spawn(note(log, 'c', 1));
  log += 'a';
  EXPECT_EQ(scope.active(), 3u);
  co_await scope.join();
  EXPECT_EQ(scope.active(), 0u);
  log += 'e';
}

TEST(TaskScope, TasksStartAtTheNextTurnAndJoinWaitsForAll) {
  std::string log;
  test::run_task(check_order(log));
  EXPECT_EQ(log, "abcde");
}

Task<> join_nothing() {
  TaskScope scope(co_await asio::this_coro::executor);
  co_await scope.join();
  co_await scope.join();
}

TEST(TaskScope, JoinOfAnEmptyScopeReturns) { test::run_task(join_nothing()); }

Task<> check_first_error(std::string& log) {
  TaskScope scope(co_await asio::this_coro::executor);
  scope.spawn(fail_after(3, "late"));
  scope.spawn(fail_after(1, "early"));
  scope.spawn(until_stopped(scope.stop_token(), log));  // ends only because a sibling failed
  co_await scope.join();
}

TEST(TaskScope, FirstErrorWinsAndStopsSiblings) {
  std::string log;
  try {
    test::run_task(check_first_error(log));
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "early");
  }
  EXPECT_EQ(log, "s");
}

Task<> check_reuse(std::string& log) {
  TaskScope scope(co_await asio::this_coro::executor);
  scope.spawn(fail_after(0, "once"));
  bool thrown = false;
  try {
    co_await scope.join();
  } catch (const Error&) {
    thrown = true;
  }
  EXPECT_TRUE(thrown);
  EXPECT_FALSE(scope.stop_token().stop_requested());
  scope.spawn(note(log, 'x', 2));
  co_await scope.join();  // the error was reported once
}

TEST(TaskScope, CanBeUsedAgainAfterAnError) {
  std::string log;
  test::run_task(check_reuse(log));
  EXPECT_EQ(log, "x");
}

Task<> check_stop(std::string& log) {
  TaskScope scope(co_await asio::this_coro::executor);
  scope.spawn(until_stopped(scope.stop_token(), log));
  scope.request_stop();
  EXPECT_TRUE(scope.stop_token().stop_requested());
  co_await scope.join();
}

TEST(TaskScope, RequestStopReachesTasks) {
  std::string log;
  test::run_task(check_stop(log));
  EXPECT_EQ(log, "s");
}

Task<> spawn_more(TaskScope& scope, std::string& log) {
  co_await yield();
  scope.spawn(note(log, 'n', 1));
}

Task<> check_nested(std::string& log) {
  TaskScope scope(co_await asio::this_coro::executor);
  scope.spawn(spawn_more(scope, log));
  co_await scope.join();
  EXPECT_EQ(log, "n");
}

TEST(TaskScope, JoinWaitsForTasksSpawnedByTasks) {
  std::string log;
  test::run_task(check_nested(log));
}

Task<> join_it(TaskScope& scope) { co_await scope.join(); }

Task<> check_second_join(std::string& log) {
  TaskScope scope(co_await asio::this_coro::executor);
  TaskScope joiners(co_await asio::this_coro::executor);
  scope.spawn(until_stopped(scope.stop_token(), log));
  joiners.spawn(join_it(scope));
  co_await yield();
  co_await yield();
  bool refused = false;
  try {
    co_await scope.join();
  } catch (const Error&) {
    refused = true;
  }
  EXPECT_TRUE(refused);
  scope.request_stop();
  co_await joiners.join();
}

TEST(TaskScope, ASecondJoinAtATimeIsRefused) {
  std::string log;
  test::run_task(check_second_join(log));
}

void destroy_unjoined() {
  asio::io_context context(1);
  std::optional<TaskScope> scope(context.get_executor());
  std::string log;
  scope->spawn(note(log, 'x', 1));
  scope.reset();
}

TEST(TaskScopeDeathTest, DestroyingARunningScopeTerminates) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(destroy_unjoined(), "destroyed with 1 running tasks");
}

}  // namespace
}  // namespace millrace
