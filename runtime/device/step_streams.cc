#include "millrace/runtime/device/step_streams.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <utility>

#include "millrace/runtime/device/device_error.h"
#include "millrace/runtime/device/event_waiter.h"

namespace millrace {

StepStreams::StepStreams(DeviceStream& train)
    : train_(train),
      copy_in_(train),
      readback_(train, {.capacity = kKept, .entry_bytes = sizeof(float)}),
      scores_(train.device()),
      fetched_(train.device()) {}

std::byte* StepStreams::destination(const CopyIn::Slot& slot, std::size_t bytes) {
  if (destinations_.size() <= slot.index()) destinations_.resize(slot.index() + 1);
  std::unique_ptr<DeviceBuffer>& buffer = destinations_[slot.index()];
  if (!buffer || buffer->size() < bytes) {
    // At least doubled, so that all that was outgrown is no more than what is in use.
    const std::uint64_t least = buffer ? 2 * buffer->size() : 0;
    if (buffer) outgrown_.push_back(std::move(buffer));
    buffer = train_.device().allocate(std::max<std::uint64_t>(bytes, least));
  }
  return buffer->data();
}

std::span<std::byte* const> StepStreams::room(std::span<const std::size_t> part_bytes) {
  if (filling_ != nullptr) {
    copy_in_.lay_out(*filling_, part_bytes);
  } else {
    filling_ = copy_in_.try_next(part_bytes);
  }
  if (filling_ == nullptr) return {};
  room_.clear();
  for (std::size_t i = 0; i < part_bytes.size(); ++i) room_.push_back(filling_->part(i).data());
  return room_;
}

bool StepStreams::is_in_room(std::span<const std::span<const std::byte>> parts) const {
  if (filling_ == nullptr || parts.size() != filling_->parts()) return false;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::span<const std::byte> room = filling_->part(i);
    if (parts[i].data() != room.data() || parts[i].size() != room.size()) return false;
  }
  return true;
}

std::span<std::byte* const> StepStreams::bring(std::span<const std::span<const std::byte>> parts) {
  if (!is_in_room(parts)) {
    sizes_.clear();
    for (const auto part : parts) sizes_.push_back(part.size());
    const auto to = room(sizes_);
    if (filling_ == nullptr) {
      throw std::logic_error("StepStreams::bring before pending() was reached");
    }
    for (std::size_t i = 0; i < parts.size(); ++i) std::ranges::copy(parts[i], to[i]);
  }
  slot_ = std::exchange(filling_, nullptr);
  std::byte* const to = destination(*slot_, slot_->bytes().size());
  addresses_.clear();
  for (std::size_t i = 0; i < parts.size(); ++i) addresses_.push_back(to + slot_->offset(i));
  copy_in_.put_in(*slot_, to);
  ++batches_;
  fetches_ = false;
  if (timeline_) timeline_->begin(batches_);
  return addresses_;
}

void StepStreams::used() {
  if (slot_ != nullptr) copy_in_.used(*std::exchange(slot_, nullptr));
  if (timeline_ && fetches_) timeline_->end();
}

void StepStreams::stepped() {
  if (timeline_) timeline_->end();
}

std::span<const StreamSpan> StepStreams::spans() {
  if (!timeline_) timeline_ = std::make_unique<StreamTimeline>(train_);
  timeline_->take(spans_);
  if (spans_.size() >= 2 * kKeptSpans) spans_.erase(spans_.begin(), spans_.end() - kKeptSpans);
  return spans_;
}

std::uint32_t StepStreams::send(const std::byte* from) {
  readback_.take_ready(keeps_numbers());
  if (!readback_.push(sent_, from, sizeof(float))) {
    throw std::logic_error("StepStreams::send: the host is too far ahead of its device");
  }
  return sent_++;
}

Readback::Take StepStreams::keeps_numbers() {
  return [this](std::int64_t ticket, std::span<const std::byte> result) {
    std::memcpy(&numbers_[static_cast<std::size_t>(ticket) % kKept], result.data(), sizeof(float));
    arrived_ = static_cast<std::uint32_t>(ticket) + 1;
  };
}

std::optional<float> StepStreams::number(std::uint32_t ticket) const {
  if (ticket >= arrived_ || sent_ - ticket > kKept) return std::nullopt;
  return numbers_[ticket % kKept];
}

void StepStreams::fetch(const std::byte* from, std::size_t bytes) {
  if (!fetched_.done()) {
    throw std::logic_error("StepStreams::fetch before pending() was reached");
  }
  scores_.reserve(bytes);
  fetched_bytes_ = bytes;
  fetches_ = true;
  fetched_.begin(train_);
  train_.copy_to_host(scores_.bytes().first(bytes), from);
  fetched_.end();
}

std::span<const std::byte> StepStreams::received() const {
  if (fetched_.under_way()) {
    throw std::logic_error("StepStreams::received before pending() was reached");
  }
  return scores_.bytes().first(fetched_bytes_);
}

const DeviceEvent* StepStreams::pending() {
  readback_.take_ready(keeps_numbers());
  if (!fetched_.done()) return &fetched_.event();
  return copy_in_.pending();
}

const DeviceEvent* StepStreams::unread() {
  readback_.take_ready(keeps_numbers());
  return readback_.newest();
}

Task<> StepStreams::drain(EventWaiter& waiter) {
  std::exception_ptr failure;
  const auto keep = [&failure] {
    if (!failure) failure = std::current_exception();
  };
  try {
    co_await copy_in_.drain(waiter);
  } catch (const DeviceError&) {
    keep();
  }
  try {
    Readback::Take take = keeps_numbers();
    co_await readback_.drain(waiter, take);
  } catch (const DeviceError&) {
    keep();
  }
  try {
    co_await fetched_.settle(waiter);
  } catch (const DeviceError&) {
    keep();
  }
  try {
    const DeviceEvent* const stepped = timeline_ ? timeline_->newest() : nullptr;
    if (stepped != nullptr) co_await waiter.wait(*stepped);
  } catch (const DeviceError&) {
    keep();
  }
  if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
}

}  // namespace millrace
