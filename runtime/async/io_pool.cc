#include "millrace/runtime/async/io_pool.h"

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <thread>
#include <vector>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/async/thread_name.h"

namespace millrace {

struct IoPool::Impl {
  explicit Impl(std::size_t threads)
      : context(static_cast<int>(threads)), work(context.get_executor()) {}
  ~Impl() {
    work.reset();
    for (std::thread& thread : threads) thread.join();
  }

  asio::io_context context;
  asio::executor_work_guard<asio::io_context::executor_type> work;
  std::vector<std::thread> threads;
};

IoPool::IoPool() : IoPool(Options()) {}

IoPool::IoPool(const Options& options) {
  if (options.threads == 0) throw ConfigError("io_pool.threads", "must be at least 1");
  impl_ = std::make_unique<Impl>(options.threads);
  impl_->threads.reserve(options.threads);
  for (std::size_t i = 0; i < options.threads; ++i) {
    const std::string name = options.name + "-" + std::to_string(i);
    impl_->threads.emplace_back([impl = impl_.get(), name, low = options.low_priority] {
      name_this_thread(name);
      if (low) lower_this_threads_priority();
      impl->context.run();
    });
  }
}

IoPool::~IoPool() = default;

asio::any_io_executor IoPool::executor() const { return impl_->context.get_executor(); }
std::size_t IoPool::threads() const noexcept { return impl_->threads.size(); }

}  // namespace millrace
