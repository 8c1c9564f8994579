#include "millrace/runtime/async/task_scope.h"

#include <asio/co_spawn.hpp>
#include <asio/post.hpp>
#include <cstdio>
#include <exception>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/async/suspend.h"

namespace millrace {

struct TaskScope::Impl {
  explicit Impl(asio::any_io_executor e) : executor(std::move(e)) {}

  void finished(std::exception_ptr error) {
    if (error && !first_error) {
      first_error = std::move(error);
      stop.request_stop();
    }
    if (--active == 0 && joiner) joiner();
  }

  asio::any_io_executor executor;
  std::stop_source stop;
  std::size_t active = 0;
  std::exception_ptr first_error;
  Resumption joiner;
};

TaskScope::TaskScope(asio::any_io_executor executor)
    : impl_(std::make_shared<Impl>(std::move(executor))) {}

TaskScope::~TaskScope() {
  if (impl_->active == 0) return;
  std::fprintf(stderr, "millrace: a task scope was destroyed with %zu running tasks; join() it\n",
               impl_->active);
  std::terminate();
}

void TaskScope::spawn(Task<> task) {
  ++impl_->active;
  // co_spawn alone would start the task inside this call when it is made on the executor.
  asio::post(impl_->executor, [impl = impl_, task = std::move(task)]() mutable {
    const asio::any_io_executor executor = impl->executor;
    asio::co_spawn(executor, std::move(task), [impl = std::move(impl)](std::exception_ptr error) {
      impl->finished(std::move(error));
    });
  });
}

Task<> TaskScope::join() {
  const std::shared_ptr<Impl> impl = impl_;
  if (impl->joiner) throw Error("task scope: join() is already awaited");
  while (impl->active != 0) {
    auto park = [&impl](Resumption resume) { impl->joiner = std::move(resume); };
    co_await suspend(park);
  }
  if (impl->stop.stop_requested()) impl->stop = std::stop_source();
  if (impl->first_error) std::rethrow_exception(std::exchange(impl->first_error, nullptr));
}

std::size_t TaskScope::active() const noexcept { return impl_->active; }
std::stop_token TaskScope::stop_token() const noexcept { return impl_->stop.get_token(); }
void TaskScope::request_stop() noexcept { impl_->stop.request_stop(); }

}  // namespace millrace
