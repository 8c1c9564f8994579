#include "millrace/runtime/async/train_context.h"

#include <asio/co_spawn.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/async/thread_name.h"

namespace millrace {

struct TrainContext::Thread {
  explicit Thread(const std::string& name)
      : context(1), work(context.get_executor()), runner([this, name] {
          name_this_thread(name);
          context.run();
        }) {}
  ~Thread() {
    work.reset();
    runner.join();
  }

  asio::io_context context;
  asio::executor_work_guard<asio::io_context::executor_type> work;
  std::thread runner;
};

TrainContext::TrainContext(const std::string& thread_name)
    : thread_(std::make_unique<Thread>(thread_name)), executor_(thread_->context.get_executor()) {}

TrainContext::TrainContext(asio::any_io_executor host) : executor_(std::move(host)) {}

TrainContext::~TrainContext() = default;

asio::any_io_executor TrainContext::executor() const { return executor_; }

void TrainContext::run(Task<> task) {
  if (thread_ && thread_->runner.get_id() == std::this_thread::get_id()) {
    throw Error("train context: run() was called on its own thread; await the task instead");
  }
  // Not a std::promise: it copies the exception, and the copy would be released over there while
  // the caller already reads it.
  struct {
    std::mutex mutex;
    std::condition_variable changed;
    bool reached = false;
    std::exception_ptr error;
  } end;
  start(std::move(task), [&end](std::exception_ptr error) {
    const std::lock_guard lock(end.mutex);
    end.error = std::move(error);
    end.reached = true;
    end.changed.notify_one();  // under the lock: the caller's frame goes when it sees `reached`
  });
  std::unique_lock lock(end.mutex);
  end.changed.wait(lock, [&end] { return end.reached; });
  if (end.error) std::rethrow_exception(std::move(end.error));
}

void TrainContext::start(Task<> task, std::function<void(std::exception_ptr)> done) {
  // The second post lets Asio drop its own copies of the exception first: `done` may hand it to
  // another thread, and then no one else releases it.
  auto report = [executor = executor_, done = std::move(done)](std::exception_ptr error) mutable {
    asio::post(executor, [done = std::move(done), error = std::move(error)]() mutable {
      done(std::move(error));
    });
  };
  asio::post(executor_,
             [executor = executor_, task = std::move(task), report = std::move(report)]() mutable {
               asio::co_spawn(executor, std::move(task), std::move(report));
             });
}

}  // namespace millrace
