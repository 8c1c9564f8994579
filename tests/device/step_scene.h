// A training run in small: a loader thread fills batches, steps on the train stream read them, and
// their losses come back. Who writes or reads too early makes a wrong loss.
#pragma once

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "millrace/runtime/device/copy_in.h"
#include "millrace/runtime/device/device_error.h"
#include "millrace/runtime/device/event_waiter.h"
#include "millrace/runtime/device/readback.h"
#include "tests/support/fake_cuda/memory_order.h"
#include "tests/support/images.h"
#include "tests/support/run_task.h"

namespace millrace::test {

// A device with a train stream on which kernels can be put.
class StepDevice {
 public:
  virtual ~StepDevice() = default;
  virtual DeviceStream& train() = 0;
  virtual void launch(std::function<void()> kernel, std::vector<Use> uses) = 0;
  // No kernel runs any more, also on a device that has failed.
  virtual void drain() = 0;
  // The memory is the device's meanwhile.
  virtual void own(std::span<std::byte>) {}
  virtual void disown(std::span<std::byte>) {}
};

// Slots on their way from the loader to the train thread, or why there is none any more.
class Handoff {
 public:
  struct Loaded {
    CopyIn::Slot* slot = nullptr;
    std::uint32_t batch = 0;
  };
  void push(Loaded loaded) {
    const std::scoped_lock lock(mutex_);
    loaded_.push_back(loaded);
    changed_.notify_one();
  }
  void fail(std::exception_ptr error) {
    const std::scoped_lock lock(mutex_);
    error_ = std::move(error);
    changed_.notify_one();
  }
  Loaded pop() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !loaded_.empty() || error_; });
    if (loaded_.empty()) std::rethrow_exception(std::exchange(error_, nullptr));
    const Loaded first = loaded_.front();
    loaded_.pop_front();
    return first;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Loaded> loaded_;
  std::exception_ptr error_;
};

inline std::uint64_t hash(std::uint64_t start, std::span<const std::byte> bytes) {
  for (const std::byte byte : bytes)
    start = (start ^ static_cast<std::uint64_t>(byte)) * 1099511628211u;
  return start;
}

class StepScene {
 public:
  static constexpr int kSteps = 14;
  using Loss = std::pair<std::int64_t, std::uint64_t>;

  StepScene(StepDevice& device, std::uint32_t seed)
      : seed_(seed),
        random_(seed),
        device_(device),
        memory_(device, 4 * kMost + sizeof(std::uint64_t)) {
    const std::size_t slots = 1 + random_() % 3;
    copy_in_ = std::make_unique<CopyIn>(device.train(), slots);
    ReadbackOptions options;
    options.capacity = 1 + random_() % 8;
    readback_ = std::make_unique<Readback>(device.train(), options);
    if (random_() % 2 == 0) copy_in_->reserve(kMost);
  }

  // Empty when all went well. Afterwards nothing is under way.
  std::exception_ptr run() {
    std::exception_ptr failure;
    {
      std::jthread loader([this](const std::stop_token& stop) { load(stop); });
      attempt(steps(), failure);
    }
    attempt(readback_->drain(waiter_, take_), failure);
    attempt(copy_in_->drain(waiter_), failure);
    return failure;
  }

  // What came back, and what had to.
  const std::vector<Loss>& losses() const { return losses_; }
  std::vector<Loss> expected() const {
    std::vector<Loss> all;
    for (std::uint32_t batch = 0; all.size() < kSteps; ++batch) {
      if (is_unwanted(batch)) continue;
      std::uint64_t loss = 0;
      for (std::size_t i = 0; i < 2; ++i) loss = hash(loss, content(batch, i));
      all.emplace_back(std::ssize(all), loss);
    }
    return all;
  }

 private:
  static constexpr std::size_t kMost = 16'384;  // bytes of a batch

  // Memory that kernels may touch, whatever is thrown meanwhile.
  struct Owned {
    Owned(StepDevice& owner, std::size_t size) : device(owner), bytes(size) { device.own(bytes); }
    ~Owned() {
      device.drain();
      device.disown(bytes);
    }
    StepDevice& device;
    std::vector<std::byte> bytes;
  };

  bool is_unwanted(std::uint32_t batch) const { return (batch + seed_) % 5 == 0; }
  // Inputs and targets, larger later.
  std::array<std::size_t, 2> sizes(std::uint32_t batch) const {
    return {(batch * 7919 + seed_) % (batch < 5 ? 3000 : 15'000), (batch + seed_) % 300};
  }
  std::vector<std::byte> content(std::uint32_t batch, std::size_t part) const {
    return pattern(sizes(batch)[part], seed_ * 1000 + batch * 2 + static_cast<std::uint32_t>(part));
  }

  // Loader thread.
  void load(const std::stop_token& stop) try {
    for (std::uint32_t batch = 0;; ++batch) {
      CopyIn::Slot* const slot = copy_in_->next(sizes(batch), stop);
      if (slot == nullptr || stop.stop_requested()) return;
      for (std::size_t i = 0; i < 2; ++i)
        std::ranges::copy(content(batch, i), slot->part(i).begin());
      if (is_unwanted(batch)) {
        copy_in_->give_back(*slot);
      } else {
        handoff_.push({slot, batch});
      }
    }
  } catch (const DeviceError&) {
    handoff_.fail(std::current_exception());
  }

  // Train context.
  Task<> steps() {
    for (int iter = 0; iter < kSteps; ++iter) {
      const Handoff::Loaded loaded = handoff_.pop();
      step(*loaded.slot);
      while (!readback_->push(iter, loss().data(), loss().size())) {
        if (readback_->take_ready(take_) == 0) co_await readback_->wait_oldest(waiter_);
      }
      if (random_() % 3 == 0) readback_->take_ready(take_);
    }
  }
  void step(CopyIn::Slot& slot) {
    std::byte* const to = memory_.bytes.data() + slot.index() * kMost;
    const std::array<std::span<const std::byte>, 2> parts = {
        std::span(to + slot.offset(0), slot.part(0).size()),
        std::span(to + slot.offset(1), slot.part(1).size())};
    copy_in_->put_in(slot, to);
    device_.launch(
        [parts, to = loss().data()] {
          const std::uint64_t early = hash(hash(0, parts[0]), parts[1]);
          std::this_thread::yield();
          const std::uint64_t late = hash(hash(0, parts[0]), parts[1]);
          const std::uint64_t value = early == late ? early : 0;
          std::memcpy(to, &value, sizeof(value));
        },
        {{parts[0]}, {parts[1]}, {loss(), true}});
    copy_in_->used(slot);
  }
  std::span<std::byte> loss() { return std::span(memory_.bytes).subspan(4 * kMost); }

  void attempt(Task<> task, std::exception_ptr& failure) {
    try {
      run_task(std::move(task));
    } catch (const DeviceError&) {
      if (!failure) failure = std::current_exception();
    }
  }

  const std::uint32_t seed_;
  std::mt19937 random_;
  StepDevice& device_;
  Owned memory_;  // destinations, then the loss
  EventWaiter waiter_;
  std::unique_ptr<CopyIn> copy_in_;
  std::unique_ptr<Readback> readback_;
  Handoff handoff_;
  std::vector<Loss> losses_;
  Readback::Take take_ = [this](std::int64_t iter, std::span<const std::byte> result) {
    std::uint64_t value = 0;
    std::memcpy(&value, result.data(), sizeof(value));
    losses_.emplace_back(iter, value);
  };
};

}  // namespace millrace::test
