#include "millrace/runtime/async/train_context.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <future>
#include <thread>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

Task<> note_thread(std::thread::id& id, std::string& name) {
  id = std::this_thread::get_id();
  char text[16] = {};
  pthread_getname_np(pthread_self(), text, sizeof(text));
  name = text;
  co_return;
}

Task<> fail() {
  throw Error("no data");
  co_return;
}

TEST(TrainContext, RunsOnItsOwnNamedThread) {
  TrainContext train;
  std::thread::id first, second;
  std::string name;
  train.run(note_thread(first, name));
  train.run(note_thread(second, name));
  EXPECT_EQ(name, "mr-train");
  EXPECT_NE(first, std::this_thread::get_id());
  EXPECT_EQ(first, second);
}

TEST(TrainContext, RunRethrowsAndStaysUsable) {
  TrainContext train;
  EXPECT_THROW(train.run(fail()), Error);
  std::thread::id id;
  std::string name;
  train.run(note_thread(id, name));
  EXPECT_EQ(name, "mr-train");
}

TEST(TrainContext, StartReportsErrorOrNullOnTheTrainThread) {
  TrainContext train("mr-other");
  std::promise<std::pair<std::exception_ptr, std::thread::id>> bad, good;
  train.start(fail(), [&](std::exception_ptr e) {
    bad.set_value({std::move(e), std::this_thread::get_id()});
  });
  auto [error, where] = bad.get_future().get();
  EXPECT_THROW(std::rethrow_exception(std::move(error)), Error);

  std::thread::id id;
  std::string name;
  train.start(note_thread(id, name), [&](std::exception_ptr e) {
    good.set_value({std::move(e), std::this_thread::get_id()});
  });
  EXPECT_EQ(good.get_future().get().first, nullptr);
  EXPECT_EQ(where, id);
  EXPECT_EQ(name, "mr-other");
}

Task<> run_inside(TrainContext& train) {
  train.run(fail());
  co_return;
}

TEST(TrainContext, RunOnItsOwnThreadIsRefused) {
  TrainContext train;
  try {
    train.run(run_inside(train));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("own thread"), std::string::npos);
  }
}

TEST(TrainContext, UsesTheExecutorOfAHost) {
  asio::io_context context(1);
  auto work = asio::make_work_guard(context);
  std::thread host([&context] { context.run(); });
  std::thread::id id;
  std::string name;
  {
    TrainContext train(context.get_executor());
    train.run(note_thread(id, name));
  }
  EXPECT_EQ(id, host.get_id());
  work.reset();
  host.join();
}

}  // namespace
}  // namespace millrace
