#include "millrace/runtime/device/readback.h"

#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "millrace/runtime/device/device_error.h"

namespace millrace {
namespace {

std::string place_of(std::int64_t iter) { return "result of iteration " + std::to_string(iter); }

}  // namespace

Readback::Readback(DeviceStream& train, ReadbackOptions options)
    : train_(train), entry_bytes_(options.entry_bytes), memory_(train.device()) {
  memory_.reserve(options.capacity * entry_bytes_);
  while (entries_.size() < options.capacity) entries_.emplace_back(train.device());
}

bool Readback::push(std::int64_t iter, const std::byte* from, std::size_t bytes) {
  if (bytes > entry_bytes_) {
    throw std::logic_error("Readback::push: " + std::to_string(bytes) + " bytes, an entry holds " +
                           std::to_string(entry_bytes_));
  }
  if (count_ == entries_.size()) return false;
  const std::size_t index = (first_ + count_) % entries_.size();
  Entry& entry = entries_[index];
  entry.iter = iter;
  entry.bytes = bytes;
  entry.dropped = true;  // until all of it was put in
  ++count_;
  entry.copied.begin(train_);
  train_.copy_to_host(memory_.bytes().subspan(index * entry_bytes_, bytes), from);
  entry.copied.end();
  entry.dropped = false;
  return true;
}

std::size_t Readback::take_ready(const Take& take) {
  std::size_t taken = 0;
  while (oldest_arrived()) taken += take_oldest(take) ? 1 : 0;
  return taken;
}

const DeviceEvent* Readback::newest() {
  if (count_ == 0) return nullptr;
  return &entries_[(first_ + count_ - 1) % entries_.size()].copied.event();
}

bool Readback::oldest_arrived() {
  if (count_ == 0) return false;
  try {
    return oldest().copied.done();
  } catch (const DeviceError& error) {
    throw DeviceError(place_of(oldest().iter), error);
  }
}

bool Readback::take_oldest(const Take& take) {
  const Entry& entry = oldest();
  const auto result = memory_.bytes().subspan(first_ * entry_bytes_, entry.bytes);
  first_ = (first_ + 1) % entries_.size();
  --count_;
  if (!entry.dropped) take(entry.iter, result);
  return !entry.dropped;
}

Task<> Readback::wait_oldest(EventWaiter& waiter) {
  if (count_ == 0) co_return;
  Entry& entry = oldest();
  try {
    co_await entry.copied.settle(waiter);
  } catch (const DeviceError& error) {
    if (error.sticky()) entry.dropped = true;
    throw DeviceError(place_of(entry.iter), error);
  }
}

Task<> Readback::drain(EventWaiter& waiter, Take take) {
  std::exception_ptr lost;
  while (count_ > 0) {
    try {
      co_await wait_oldest(waiter);
    } catch (const DeviceError& error) {
      if (!error.sticky()) throw;
      if (!lost) lost = std::current_exception();
    }
    while (count_ > 0 && !oldest().copied.under_way()) take_oldest(take);
  }
  if (lost) std::rethrow_exception(std::exchange(lost, nullptr));
}

}  // namespace millrace
