#include "millrace/runtime/device/pending_copy.h"

#include <cstdio>
#include <exception>

#include "millrace/runtime/device/device_error.h"
#include "millrace/runtime/device/event_waiter.h"

namespace millrace {
namespace {

constexpr int kAttempts = 3;

}  // namespace

PendingCopy::~PendingCopy() {
  for (int attempt = 1; under_way_ && attempt <= kAttempts; ++attempt) {
    try {
      wait();
    } catch (const DeviceError& error) {
      under_way_ = !error.sticky();
    }
  }
  if (!under_way_) return;
  std::fputs(
      "millrace: a copy to memory that is being given back can be neither awaited nor undone\n",
      stderr);
  std::terminate();
}

void PendingCopy::begin(DeviceStream& stream) noexcept {
  stream_ = &stream;
  under_way_ = true;
  recorded_ = false;
}

const DeviceEvent& PendingCopy::event() {
  if (!recorded_) stream_->record(*event_);
  recorded_ = true;
  return *event_;
}

bool PendingCopy::done() {
  under_way_ = under_way_ && !event().done();
  return !under_way_;
}

void PendingCopy::wait() {
  if (under_way_) event().wait();
  under_way_ = false;
}

Task<> PendingCopy::settle(EventWaiter& waiter) {
  for (int attempt = 1; under_way_; ++attempt) {
    try {
      co_await waiter.wait(event());
      done();
    } catch (const DeviceError& error) {
      under_way_ = !error.sticky();
      if (error.sticky() || attempt == kAttempts) throw;
    }
  }
}

}  // namespace millrace
