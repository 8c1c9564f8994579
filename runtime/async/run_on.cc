#include "millrace/runtime/async/run_on.h"

#include <asio/post.hpp>

#include "millrace/runtime/async/suspend.h"

namespace millrace {

Task<> post_and_wait(asio::any_io_executor pool, std::function<void()> job) {
  auto send = [&pool, &job](Resumption resume) {
    // The job is a reference into the suspended frame, which outlives the call to resume().
    asio::post(pool, [&job, resume = std::move(resume)]() mutable {
      job();
      resume();
    });
  };
  co_await suspend(send);
}

}  // namespace millrace
