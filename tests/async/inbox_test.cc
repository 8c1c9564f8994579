#include "millrace/runtime/async/inbox.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/async/suspend.h"
#include "millrace/runtime/async/task_scope.h"
#include "millrace/runtime/async/train_context.h"
#include "tests/support/alloc_counter.h"
#include "tests/support/run_task.h"

namespace millrace {
namespace {

Task<> append(std::string& log, char c) {
  co_await yield();  // a notice may suspend; the next one still waits for it
  log += c;
}

Task<> fail() {
  throw Error("notice failed");
  co_return;
}

Inbox::Notice appends(std::string& log, char c) {
  return [&log, c] { return append(log, c); };
}

Task<> check_order(Inbox& inbox, std::string& log) {
  for (char c : std::string("abc")) inbox.post(appends(log, c));
  EXPECT_FALSE(inbox.empty());
  EXPECT_EQ(log, "");
  co_await inbox.deliver();
  EXPECT_EQ(log, "abc");
  EXPECT_TRUE(inbox.empty());
}

TEST(Inbox, DeliversInPostingOrderAndOnlyInDeliver) {
  asio::io_context context(1);
  Inbox inbox;
  std::string log;
  test::run_task(context, check_order(inbox, log));
}

Task<> post_another(Inbox& inbox, std::string& log) {
  log += '1';
  inbox.post(appends(log, '2'));
  co_return;
}

Task<> deliver_once(Inbox& inbox) { co_await inbox.deliver(); }

TEST(Inbox, ANoticePostedByANoticeIsDeliveredInTheSameCall) {
  asio::io_context context(1);
  Inbox inbox;
  std::string log;
  inbox.post([&] { return post_another(inbox, log); });
  test::run_task(context, deliver_once(inbox));
  EXPECT_EQ(log, "12");
}

TEST(Inbox, AnExceptionKeepsTheRestQueued) {
  asio::io_context context(1);
  Inbox inbox;
  std::string log;
  inbox.post(appends(log, 'a'));
  inbox.post(fail);
  inbox.post(appends(log, 'b'));
  EXPECT_THROW(test::run_task(context, deliver_once(inbox)), Error);
  EXPECT_EQ(log, "a");
  EXPECT_FALSE(inbox.empty());
  test::run_task(context, deliver_once(inbox));
  EXPECT_EQ(log, "ab");
}

Task<> count_deliver(Inbox& inbox, std::uint64_t& allocations) {
  for (int i = 0; i < 10; ++i) co_await inbox.deliver();  // fills Asio's frame recycler
  const test::AllocationCount count;
  for (int i = 0; i < 1000; ++i) co_await inbox.deliver();
  allocations = count.so_far();
}

TEST(AllocationCount, SeesNewAndAsiosFrames) {
  const test::AllocationCount count;
  ::operator delete(::operator new(8));  // a new-expression may be optimized away
  EXPECT_EQ(count.so_far(), 1u);
  { const Task<> frame = fail(); }  // outside of run(), where nothing is recycled
  EXPECT_EQ(count.so_far(), 2u);
}

TEST(Inbox, DeliverWithNothingWaitingAllocatesNothing) {
  asio::io_context context(1);
  Inbox inbox;
  std::uint64_t allocations = 1;
  test::run_task(context, count_deliver(inbox, allocations));
  EXPECT_EQ(allocations, 0u);
}

Task<> loop_until(Inbox& inbox, const bool& done) {
  while (!done) co_await inbox.deliver();
}

TEST(Inbox, ALoopThatOnlyYieldsReceivesNoticesAndStarvesNoOtherHandler) {
  asio::io_context context(1);
  Inbox inbox;
  bool handler_ran = false;
  bool done = false;
  asio::post(context, [&] { handler_ran = true; });
  std::thread other([&] {
    inbox.post([&done]() -> Task<> {
      done = true;
      co_return;
    });
  });
  test::run_task(context, loop_until(inbox, done));
  other.join();
  EXPECT_TRUE(handler_ran);
}

Task<> wait_then_deliver(Inbox& inbox, std::string& log) {
  log += 'w';
  co_await inbox.wait();
  co_await inbox.deliver();
  co_await inbox.wait();  // one waits already: returns at once
  co_await inbox.deliver();
}

Task<> post_two(Inbox& inbox, std::string& log) {
  log += 'p';
  auto second = appends(log, '2');
  inbox.post([&log, &inbox, second]() -> Task<> {
    log += '1';
    co_return;
  });
  co_await yield();
  co_await yield();
  co_await yield();
  inbox.post(second);
}

Task<> check_wait(Inbox& inbox, std::string& log) {
  TaskScope scope(co_await asio::this_coro::executor);
  scope.spawn(wait_then_deliver(inbox, log));
  scope.spawn(post_two(inbox, log));
  co_await scope.join();
}

TEST(Inbox, WaitSuspendsUntilANoticeComes) {
  asio::io_context context(1);
  Inbox inbox;
  std::string log;
  test::run_task(context, check_wait(inbox, log));
  EXPECT_EQ(log, "wp12");
}

Task<> receive(Inbox& inbox, const int& received, int expected) {
  while (received < expected) {
    co_await inbox.wait();
    co_await inbox.deliver();
  }
}

Task<> count_one(int& received, std::vector<int>& last, int sender, int number) {
  EXPECT_EQ(last[sender], number - 1);  // order per sender
  last[sender] = number;
  ++received;
  co_return;
}

TEST(Inbox, TenThousandPostsFromFourThreads) {
  constexpr int kSenders = 4, kEach = 2500;
  TrainContext train;
  Inbox inbox;
  int received = 0;  // train thread only
  std::vector<int> last(kSenders, -1);
  std::vector<std::thread> senders;
  for (int s = 0; s < kSenders; ++s) {
    senders.emplace_back([&, s] {
      for (int i = 0; i < kEach; ++i) {
        inbox.post([&received, &last, s, i] { return count_one(received, last, s, i); });
        if ((i * 7 + s) % 13 == 0) std::this_thread::yield();
      }
    });
  }
  train.run(receive(inbox, received, kSenders * kEach));
  for (std::thread& sender : senders) sender.join();
  EXPECT_EQ(received, kSenders * kEach);
}

TEST(Inbox, UndeliveredNoticesAreDropped) {
  asio::io_context context(1);
  auto captured = std::make_shared<int>(0);
  {
    Inbox inbox;
    inbox.post([captured]() -> Task<> { co_return; });
    EXPECT_EQ(captured.use_count(), 2);
  }
  EXPECT_EQ(captured.use_count(), 1);
}

}  // namespace
}  // namespace millrace
