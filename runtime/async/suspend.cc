#include "millrace/runtime/async/suspend.h"

#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/execution/outstanding_work.hpp>
#include <asio/post.hpp>
#include <asio/prefer.hpp>
#include <asio/use_awaitable.hpp>

namespace millrace {
namespace {

template <class Handler>
class ParkedHandler final : public Resumption::Parked {
 public:
  explicit ParkedHandler(Handler handler) : handler_(std::move(handler)) {}

  void resume() override {
    // Tracked: the context cannot run out of work, and be destroyed, while this thread is still
    // inside its post function.
    auto home = asio::prefer(asio::get_associated_executor(handler_),
                             asio::execution::outstanding_work.tracked);
    asio::post(home, std::move(handler_));
  }

 private:
  Handler handler_;
};

}  // namespace

Task<> suspend(std::function<void(Resumption)> registrar) {
  auto start = [&registrar](auto handler) {
    using Parked = ParkedHandler<decltype(handler)>;
    registrar(Resumption(std::make_unique<Parked>(std::move(handler))));
  };
  co_await asio::async_initiate<const asio::use_awaitable_t<>, void()>(start, asio::use_awaitable);
}

Task<> yield() { return asio::post(asio::use_awaitable); }

}  // namespace millrace
