// Saves of a state on a device, each while kernels write what was captured, on a stream that was
// lent. The file must hold the bytes at capture.
#pragma once

#include <gmock/gmock.h>

#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "millrace/runtime/staging/staging.h"
#include "tests/device/cuda_conformance.h"
#include "tests/staging/device_scene.h"
#include "tests/support/live_state.h"

namespace millrace::test {

class CudaSaveRun {
 public:
  static constexpr int kSaves = 20;

  CudaSaveRun(CudaMachine& machine, LentStream& train, StageMode mode, StagingOptions options,
              std::uint32_t seed)
      : machine_(machine),
        train_(train),
        mode_(mode),
        seed_(seed),
        random_(seed),
        memory_(train->device().allocate(LiveState(sizes()).live.size())),
        shadow_(train->device().allocate(memory_->size())),
        staging_(std::move(options)) {
    staging_.attach(*train_.stream);
    LiveState state(sizes());
    staging_.reserve(captured(state));
  }

  bool streams() const { return staging_.streams(); }

  void run() {
    for (int number = 0; number < kSaves; ++number) save(number);
  }

 private:
  static constexpr std::byte kStale{0xCC};

  // Large ones, a parameter and its optimizer states of one group, many small, an empty one.
  static std::vector<std::uint64_t> sizes() {
    std::vector<std::uint64_t> made = {(1 << 20) + 3, 300'000, 300'000, 300'000, 0, 20'000, 16'385};
    for (std::uint64_t small = 1; small < 16'000; small = small * 2 + 1) made.push_back(small);
    return made;
  }
  static bool is_on_device(std::size_t i) { return i % 7 != 6; }
  static bool is_any_time(std::size_t i) { return i % 5 == 0 && i > 0; }

  // The storages of `state`, those on the device at the same place of memory_.
  std::vector<CapturedStorage> captured(LiveState& state) const {
    std::vector<CapturedStorage> made = state.captured;
    for (std::size_t i = 0; i < made.size(); ++i) {
      made[i].group = i >= 1 && i <= 3 ? 1 : 0;
      if (is_any_time(i)) made[i].mutation = Mutation::kAnyTime;
      made[i].on_device = is_on_device(i);
      if (made[i].on_device) made[i].bytes = there(state, made[i].bytes);
    }
    return made;
  }
  std::span<std::byte> there(const LiveState& state, std::span<const std::byte> here) const {
    return memory_->bytes().subspan(static_cast<std::size_t>(here.data() - state.live.data()),
                                    here.size());
  }

  void save(int number) {
    LiveState state(sizes(), seed_ * 1000 + static_cast<std::uint32_t>(number));
    const std::vector<std::byte> expected = state.expected_file();
    machine_.write(shadow_->bytes(), state.live);
    last_step();
    const auto storages = captured(state);
    auto snapshot = staging_.begin(storages, mode_);
    snapshot->attach_writer();
    Writer writer(std::exchange(snapshot, nullptr), 1 + random_() % 60'000);
    File file;
    if (mode_ == StageMode::kBlocking) file = writer.file();
    step(state);
    if (mode_ != StageMode::kBlocking) file = writer.file();
    EXPECT_TRUE(file == expected) << "save " << number << ": " << writer.reason();
    train_->synchronize();
  }
  // It is slow, and at its end the state is there.
  void last_step() {
    machine_.fill(train_.handle, memory_->bytes(), kStale);
    machine_.hold_up(train_.handle);
    machine_.copy(train_.handle, memory_->bytes(), shadow_->bytes());
  }
  // What may change at any time does so at once; the optimizer writes parts and then everything.
  void step(LiveState& state) {
    for (std::size_t i = 0; i < state.captured.size(); ++i) {
      if (is_any_time(i)) write(state, i, state.storage(i));
    }
    for (unsigned writes = random_() % 8; writes > 0; --writes) {
      const std::size_t i = random_() % state.captured.size();
      const auto storage = state.storage(i);
      if (storage.empty() || is_any_time(i)) continue;
      const auto part = storage.subspan(random_() % storage.size());
      staging_.gate().writable(is_on_device(i) ? there(state, part) : part);
      write(state, i, part);
    }
    staging_.gate().writable_all();
    machine_.fill(train_.handle, memory_->bytes(), kStale);
    LiveState::scribble(state.live);
  }
  void write(LiveState& state, std::size_t i, std::span<std::byte> part) {
    if (part.empty()) return;
    if (is_on_device(i)) {
      machine_.fill(train_.handle, there(state, part), kStale);
    } else {
      LiveState::scribble(part);
    }
  }

  CudaMachine& machine_;
  LentStream& train_;
  const StageMode mode_;
  const std::uint32_t seed_;
  std::mt19937 random_;
  const std::unique_ptr<DeviceBuffer> memory_, shadow_;
  Staging staging_;
};

}  // namespace millrace::test
