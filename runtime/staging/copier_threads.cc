#include "millrace/runtime/staging/copier_threads.h"

#include <algorithm>
#include <utility>

#include "millrace/runtime/async/thread_name.h"
#include "millrace/runtime/staging/snapshot.h"

namespace millrace {

CopierThreads::CopierThreads(unsigned count) {
  threads_.reserve(count);
  for (unsigned i = 0; i < count; ++i) {
    threads_.emplace_back([this, i](const std::stop_token& stop) {
      name_this_thread("mr-stage-" + std::to_string(i));
      run(stop);
    });
  }
}

CopierThreads::~CopierThreads() = default;  // a jthread asks to stop and joins

void CopierThreads::start(std::shared_ptr<Snapshot> snapshot, unsigned helpers) {
  helpers = std::min(helpers, count());
  if (helpers == 0) return;
  {
    const std::scoped_lock lock(mutex_);
    orders_.push_back({std::move(snapshot), helpers});
  }
  for (; helpers > 0; --helpers) wake_.notify_one();
}

void CopierThreads::recall(const Snapshot& snapshot) {
  const std::scoped_lock lock(mutex_);
  std::erase_if(orders_, [&](const Order& order) { return order.snapshot.get() == &snapshot; });
}

void CopierThreads::run(const std::stop_token& stop) {
  for (;;) {
    std::shared_ptr<Snapshot> snapshot;
    {
      std::unique_lock lock(mutex_);
      if (!wake_.wait(lock, stop, [this] { return !orders_.empty(); })) return;
      snapshot = orders_.front().snapshot;
      if (--orders_.front().helpers == 0) orders_.pop_front();
    }
    snapshot->copy_unclaimed();
  }
}

}  // namespace millrace
