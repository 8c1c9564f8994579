#include "millrace/runtime/async/io_pool.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <asio/post.hpp>
#include <future>
#include <mutex>
#include <vector>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

template <class F>
auto on_pool(IoPool& pool, F fn) {
  std::packaged_task<decltype(fn())()> job(std::move(fn));
  auto result = job.get_future();
  asio::post(pool.executor(), std::move(job));
  return result.get();
}

int nice_of_this_thread() {
  return getpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)));
}

std::string name_of_this_thread() {
  char text[16] = {};
  pthread_getname_np(pthread_self(), text, sizeof(text));
  return text;
}

TEST(IoPool, ThreadsAreNamedAndNice) {
  IoPool pool({.threads = 1, .low_priority = true, .name = "mr-test"});
  const int own = nice_of_this_thread();
  EXPECT_EQ(on_pool(pool, name_of_this_thread), "mr-test-0");
  EXPECT_EQ(on_pool(pool, nice_of_this_thread), std::max(own, 10));
  EXPECT_EQ(nice_of_this_thread(), own);
  auto io_level = [] { return syscall(SYS_ioprio_get, 1, syscall(SYS_gettid)); };
  EXPECT_EQ(on_pool(pool, io_level), (2 << 13) | 7);
}

TEST(IoPool, NormalPriorityWhenAsked) {
  IoPool pool({.threads = 1, .low_priority = false});
  EXPECT_EQ(on_pool(pool, nice_of_this_thread), nice_of_this_thread());
}

TEST(IoPool, OneThreadRunsJobsInOrder) {
  std::vector<int> order;
  {
    IoPool pool({.threads = 1});
    for (int i = 0; i < 100; ++i) {
      asio::post(pool.executor(), [&order, i] { order.push_back(i); });
    }
  }
  ASSERT_EQ(order.size(), 100u);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(IoPool, TwoThreadsOverlap) {
  IoPool pool({.threads = 2});
  EXPECT_EQ(pool.threads(), 2u);
  std::promise<void> from_second;
  auto first = [&] {
    from_second.get_future().get();
    return 1;
  };  // ends only if the other can run
  std::packaged_task<int()> waiting(first);
  auto done = waiting.get_future();
  asio::post(pool.executor(), std::move(waiting));
  asio::post(pool.executor(), [&] { from_second.set_value(); });
  EXPECT_EQ(done.get(), 1);
}

TEST(IoPool, RefusesZeroThreads) { EXPECT_THROW(IoPool({.threads = 0}), ConfigError); }

}  // namespace
}  // namespace millrace
