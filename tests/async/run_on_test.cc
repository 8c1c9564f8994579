#include "millrace/runtime/async/run_on.h"

#include <gtest/gtest.h>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <atomic>
#include <future>
#include <memory>
#include <thread>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/async/io_pool.h"
#include "millrace/runtime/async/task_scope.h"
#include "millrace/runtime/async/train_context.h"
#include "tests/support/run_task.h"

namespace millrace {
namespace {

using std::this_thread::get_id;

Task<> check_threads(IoPool& pool, TrainContext& train) {
  const auto home = get_id();
  const auto away = co_await run_on(pool.executor(), get_id);
  EXPECT_NE(away, home);
  EXPECT_EQ(get_id(), home);
  EXPECT_EQ(co_await asio::this_coro::executor, train.executor());
}

TEST(RunOn, RunsOnThePoolAndComesBack) {
  IoPool pool({.threads = 1});
  TrainContext train;
  train.run(check_threads(pool, train));
}

Task<> check_results(IoPool& pool) {
  int calls = 0;
  auto count = [&calls] { ++calls; };
  co_await run_on(pool.executor(), count);
  EXPECT_EQ(calls, 1);

  auto make = [] { return std::make_unique<int>(7); };
  const std::unique_ptr<int> value = co_await run_on(pool.executor(), make);
  EXPECT_EQ(*value, 7);
}

TEST(RunOn, PassesVoidAndMoveOnlyResults) {
  IoPool pool;
  test::run_task(check_results(pool));
}

struct MoveOnlyJob {
  std::unique_ptr<int> state = std::make_unique<int>(3);
  int operator()() { return ++*state; }
};

Task<> check_move_only_job(IoPool& pool) {
  MoveOnlyJob job;
  EXPECT_EQ(co_await run_on(pool.executor(), std::move(job)), 4);
}

TEST(RunOn, TakesMoveOnlyFunctions) {
  IoPool pool;
  test::run_task(check_move_only_job(pool));
}

int fail() { throw Error("disk is gone"); }
void fail_void() { throw Error("disk is gone"); }

Task<> check_exceptions(IoPool& pool) {
  const auto home = get_id();
  bool thrown = false;
  try {
    (void)co_await run_on(pool.executor(), fail);
  } catch (const Error& error) {
    thrown = true;
    EXPECT_STREQ(error.what(), "disk is gone");
    EXPECT_EQ(get_id(), home);
  }
  EXPECT_TRUE(thrown);
  co_await run_on(pool.executor(), fail_void);
  ADD_FAILURE() << "fail_void did not throw";
}

TEST(RunOn, ExceptionsCrossBack) {
  IoPool pool;
  EXPECT_THROW(test::run_task(check_exceptions(pool)), Error);
}

// The emit races with the pool's job; nothing of Asio's cancellation state may be touched there.
TEST(RunOn, CancellationDoesNotCrossExecutors) {
  IoPool pool({.threads = 1});
  asio::io_context context(1);
  asio::cancellation_signal cancel;
  std::promise<void> started, released;
  bool job_ended = false;
  std::exception_ptr error;
  auto job = [&] {
    started.set_value();
    released.get_future().get();
    job_ended = true;
  };
  asio::co_spawn(
      context, run_on(pool.executor(), job),
      asio::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr e) { error = e; }));
  asio::post(context, [&] {
    started.get_future().get();
    cancel.emit(asio::cancellation_type::all);
    released.set_value();
  });
  context.run();
  EXPECT_TRUE(job_ended);
}

Task<> hop(IoPool& pool, int times, int& resumed) {
  const auto home = get_id();
  for (int i = 0; i < times; ++i) {
    auto twice = [i] { return 2 * i; };
    EXPECT_EQ(co_await run_on(pool.executor(), twice), 2 * i);
    EXPECT_EQ(get_id(), home);
    ++resumed;  // plain: only the train thread touches it
  }
}

Task<> many_hops(IoPool& pool, int& resumed) {
  TaskScope scope(co_await asio::this_coro::executor);
  for (int i = 0; i < 20; ++i) scope.spawn(hop(pool, 100, resumed));
  co_await scope.join();
}

TEST(RunOn, ManyTasksHopWithoutARace) {
  IoPool pool({.threads = 2});
  TrainContext train;
  int resumed = 0;
  train.run(many_hops(pool, resumed));
  EXPECT_EQ(resumed, 2000);
}

}  // namespace
}  // namespace millrace
