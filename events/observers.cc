#include "millrace/events/observers.h"

#include <algorithm>
#include <cstdio>

#include "millrace/events/hook_error.h"
#include "millrace/events/isolation.h"
#include "millrace/runtime/async/thread_name.h"

namespace millrace {

std::uint64_t ObserverQueue::next_stamp() noexcept { return observers_->next_stamp(); }
void ObserverQueue::announce() { observers_->announce(); }

Observers::Observers(ObserverErrorLog log) : log_(std::move(log)) {}

Observers::~Observers() {
  if (!thread_.joinable()) return;
  std::fprintf(stderr, "millrace: an event bus with background subscribers was not closed\n");
  std::terminate();
}

void Observers::attach(std::shared_ptr<ObserverQueue> queue, std::string_view event,
                       std::string_view hook) {
  queue->observers_ = this;
  queue->event_ = event;
  queue->hook_ = hook;
  {
    const std::lock_guard lock(mutex_);
    queues_.push_back(std::move(queue));
  }
  start_if_needed();
}

void Observers::detach(const ObserverQueue& queue) noexcept {
  const std::lock_guard lock(mutex_);
  std::erase_if(queues_, [&queue](const auto& q) { return q.get() == &queue; });
}

void Observers::announce() {
  start_if_needed();
  // The observer holds the lock from its look at the rings to its wait: without it, the news could
  // fall in between and be lost.
  { const std::lock_guard lock(mutex_); }
  changed_.notify_one();
}

void Observers::start_if_needed() {
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
}

void Observers::run() {
  name_this_thread("mr-observers");
  std::unique_lock lock(mutex_);
  for (;;) {
    if (std::shared_ptr<ObserverQueue> queue = oldest()) {
      lock.unlock();
      call(*queue);
      queue.reset();  // it may be the last owner: the callable is not destroyed under the lock
      lock.lock();
    } else if (closer_) {
      Resumption closer = std::exchange(closer_, Resumption());
      lock.unlock();
      closer();
      return;
    } else {
      changed_.wait(lock);
    }
  }
}

bool Observers::any_waiting() const {
  const std::lock_guard lock(mutex_);
  return oldest() != nullptr;
}

std::shared_ptr<ObserverQueue> Observers::oldest() const {
  std::shared_ptr<ObserverQueue> first;
  std::uint64_t first_stamp = 0;
  for (const auto& queue : queues_) {
    const std::optional<std::uint64_t> stamp = queue->oldest();
    if (!stamp || (first && *stamp > first_stamp)) continue;
    first = queue;
    first_stamp = *stamp;
  }
  return first;
}

void Observers::call(ObserverQueue& queue) noexcept {
  if (queue.isolated_ && queue.isolated_->disabled()) return queue.skip_next();
  try {
    try {
      queue.run_next();
    } catch (...) {
      HookError::throw_wrapped(queue.event_, queue.hook_);
    }
  } catch (const HookError& error) {
    errors_.fetch_add(1, std::memory_order_relaxed);
    queue.errors_.fetch_add(1, std::memory_order_relaxed);
    if (queue.isolated_) return queue.isolated_->count(error);
    if (log_) log_(error);
    const std::lock_guard lock(mutex_);
    if (!first_error_) first_error_ = std::current_exception();
  }
}

Task<> Observers::close() {
  while (thread_.joinable()) {
    if (std::exchange(closing_, true)) throw Error("event bus: close() is already awaited");
    auto ask = [this](Resumption resume) {
      {
        const std::lock_guard lock(mutex_);
        closer_ = std::move(resume);
      }
      changed_.notify_one();
    };
    co_await suspend(ask);
    thread_.join();
    closing_ = false;
    if (any_waiting()) start_if_needed();  // published between the thread's last look and now
  }
  std::exception_ptr error;
  {
    const std::lock_guard lock(mutex_);
    error = std::exchange(first_error_, nullptr);
  }
  if (error) std::rethrow_exception(std::move(error));
}

std::vector<ObserverStats> Observers::stats() const {
  const std::lock_guard lock(mutex_);
  std::vector<ObserverStats> rows;
  for (const auto& q : queues_) {
    rows.push_back(
        {q->event_, q->hook_, q->delivered(), q->dropped(), q->coalesced(), q->errors()});
  }
  return rows;
}

}  // namespace millrace
