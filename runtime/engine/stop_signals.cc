#include "millrace/runtime/engine/stop_signals.h"

#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/signal_set.hpp>
#include <csignal>
#include <cstdlib>
#include <system_error>
#include <utility>

namespace millrace {

struct StopSignals::Impl {
  void wait() {
    signals.async_wait([this](const std::error_code& error, int number) {
      // A signal that raced with leave() must not wait for another one.
      if (error || left) return;
      if (std::exchange(stopping, true)) std::_Exit(128 + number);
      stop(number == SIGINT ? "SIGINT" : "SIGTERM");
      wait();
    });
  }

  asio::io_context context;
  asio::signal_set signals{context, SIGINT, SIGTERM};
  std::function<void(const char*)> stop;
  bool stopping = false;
  bool left = false;
};

StopSignals::StopSignals() : impl_(std::make_unique<Impl>()) {}
StopSignals::~StopSignals() = default;

void StopSignals::listen(std::function<void(const char* name)> stop) {
  impl_->stop = std::move(stop);
  impl_->left = false;
  impl_->stopping = false;
  impl_->context.restart();
  impl_->wait();
  impl_->context.poll();
}

void StopSignals::serve() { impl_->context.run(); }

void StopSignals::leave() {
  asio::post(impl_->context, [impl = impl_.get()] {
    impl->left = true;
    impl->signals.cancel();
  });
}

}  // namespace millrace
