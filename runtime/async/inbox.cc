#include "millrace/runtime/async/inbox.h"

#include <deque>
#include <mutex>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/async/suspend.h"

namespace millrace {

struct Inbox::Impl {
  bool take(Notice& notice) {
    const std::lock_guard lock(mutex);
    if (notices.empty()) return false;
    notice = std::move(notices.front());
    notices.pop_front();
    return true;
  }

  // A notice may have come between the caller's look and its suspension: then wake it at once.
  void park(Resumption resume) {
    const std::lock_guard lock(mutex);
    if (notices.empty()) {
      waiter = std::move(resume);
    } else {
      resume();
    }
  }

  void check_no_waiter() {
    const std::lock_guard lock(mutex);
    if (waiter) throw Error("inbox: wait() is already awaited");
  }

  mutable std::mutex mutex;
  std::deque<Notice> notices;
  Resumption waiter;
};

Inbox::Inbox() : impl_(std::make_unique<Impl>()) {}
Inbox::~Inbox() = default;

void Inbox::post(Notice notice) {
  Resumption waiter;
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->notices.push_back(std::move(notice));
    waiter = std::exchange(impl_->waiter, Resumption());
  }
  if (waiter) waiter();
}

Task<> Inbox::deliver() {
  co_await yield();
  Notice notice;
  while (impl_->take(notice)) {
    co_await notice();
    notice = nullptr;  // what it captured goes before the next one starts
  }
}

Task<> Inbox::wait() {
  if (!empty()) co_return;
  impl_->check_no_waiter();
  auto park = [this](Resumption resume) { impl_->park(std::move(resume)); };
  co_await suspend(park);
}

bool Inbox::empty() const noexcept {
  const std::lock_guard lock(impl_->mutex);
  return impl_->notices.empty();
}

}  // namespace millrace
