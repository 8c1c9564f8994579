#include "millrace/runtime/device/copy_in.h"

#include <exception>
#include <stdexcept>
#include <utility>

#include "millrace/runtime/device/device_error.h"

namespace millrace {
namespace {

constexpr std::size_t aligned(std::size_t bytes) {
  return (bytes + CopyIn::kAlignment - 1) / CopyIn::kAlignment * CopyIn::kAlignment;
}

}  // namespace

std::span<std::byte> CopyIn::Slot::part(std::size_t i) const {
  return buffer_.bytes().subspan(parts_[i].offset, parts_[i].size);
}

bool CopyIn::Slot::lay_out(std::span<const std::size_t> part_bytes) {
  parts_.clear();
  size_ = 0;
  for (const std::size_t size : part_bytes) {
    parts_.push_back({size_, size});
    size_ += aligned(size);
  }
  return buffer_.reserve(size_);
}

std::size_t CopyIn::bytes_for(std::span<const std::size_t> part_bytes) {
  std::size_t bytes = 0;
  for (const std::size_t size : part_bytes) bytes += aligned(size);
  return bytes;
}

CopyIn::CopyIn(DeviceStream& train, std::size_t slots)
    : train_(train), copies_(train.device().make_stream(StreamPriority::kHigh)) {
  for (std::size_t i = 0; i < slots; ++i) {
    slots_.push_back(std::make_unique<Slot>(train.device()));
    slots_.back()->index_ = i;
    free_.push_back(slots_.back().get());
  }
}

void CopyIn::reserve(std::size_t bytes) {
  for (const auto& slot : slots_) {
    if (slot->buffer_.reserve(bytes)) ++pins_;
  }
}

CopyIn::Slot* CopyIn::next(std::span<const std::size_t> part_bytes, const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait(lock, stop, [this] { return !free_.empty(); })) return nullptr;
  Slot& slot = *free_.front();
  lock.unlock();
  slot.copied_.wait();
  return hand_out(slot, part_bytes);
}

CopyIn::Slot* CopyIn::try_next(std::span<const std::size_t> part_bytes) {
  std::unique_lock lock(mutex_);
  if (free_.empty()) return nullptr;
  Slot& slot = *free_.front();
  lock.unlock();
  return slot.copied_.done() ? hand_out(slot, part_bytes) : nullptr;
}

const DeviceEvent* CopyIn::pending() {
  std::unique_lock lock(mutex_);
  if (free_.empty()) return nullptr;
  Slot& slot = *free_.front();
  lock.unlock();
  return slot.copied_.done() ? nullptr : &slot.copied_.event();
}

// Until here it is still the first, because there is one loader.
CopyIn::Slot* CopyIn::hand_out(Slot& slot, std::span<const std::size_t> part_bytes) {
  lay_out(slot, part_bytes);
  const std::scoped_lock lock(mutex_);
  free_.erase(free_.begin());
  slot.held_ = true;
  return &slot;
}

void CopyIn::take_back(Slot& slot) {
  const std::scoped_lock lock(mutex_);
  if (!std::exchange(slot.held_, false)) {
    throw std::logic_error("CopyIn: a slot was given back that next() has not handed out");
  }
  free_.push_back(&slot);
  changed_.notify_one();
}

void CopyIn::lay_out(Slot& slot, std::span<const std::size_t> part_bytes) {
  if (slot.lay_out(part_bytes)) ++pins_;
}

void CopyIn::give_back(Slot& slot) { take_back(slot); }

void CopyIn::put_in(Slot& slot, std::byte* to) {
  if (slot.in_use_) {
    throw std::logic_error("CopyIn::put_in: used() was not called for the slot's last batch");
  }
  if (slot.used_before_) copies_->wait_for(*slot.used_);
  slot.copied_.begin(*copies_);
  copies_->copy_to_device(to, slot.bytes());
  slot.copied_.end();
  train_.wait_for(slot.copied_.event());
  slot.in_use_ = true;
  take_back(slot);
}

void CopyIn::used(Slot& slot) {
  train_.record(*slot.used_);
  slot.used_before_ = true;
  slot.in_use_ = false;
}

Task<> CopyIn::drain(EventWaiter& waiter) {
  std::exception_ptr failure;
  for (const auto& slot : slots_) {
    try {
      co_await slot->copied_.settle(waiter);
    } catch (const DeviceError&) {
      if (!failure) failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
}

}  // namespace millrace
