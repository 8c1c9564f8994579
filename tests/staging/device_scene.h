// A seeded scene of a snapshot of a device's memory: the state, the modes, the writers that come to
// the gate, the reader of the file, and what the device does when.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "millrace/runtime/device/device.h"
#include "millrace/runtime/staging/staging.h"
#include "tests/support/live_state.h"

namespace millrace::test {

// How many seeds a test takes; MILLRACE_STRESS_SEEDS overrides it.
inline unsigned seeds(unsigned plain, unsigned under_tsan) {
  const char* const given = std::getenv("MILLRACE_STRESS_SEEDS");
#ifdef __SANITIZE_THREAD__
  plain = under_tsan;
#else
  static_cast<void>(under_tsan);
#endif
  return given != nullptr ? static_cast<unsigned>(std::atoi(given)) : plain;
}

// The device of a scene: a train stream on which kernels can be put.
class SceneDevice {
 public:
  virtual ~SceneDevice() = default;
  virtual DeviceStream& train() = 0;
  virtual void launch(std::function<void()> kernel) = 0;
  // No kernel runs any more, also on a device that has failed.
  virtual void drain() = 0;
  // Another stream, which does nothing before that.
  virtual std::unique_ptr<DeviceStream> blocked_until(std::shared_future<void> opened) = 0;
  // The memory is the device's meanwhile.
  virtual void own(std::span<std::byte>) {}
  virtual void disown(std::span<std::byte>) {}
};

// A train stream that is asked to wait and does not: the defect that must not stay unseen.
class DeafStream final : public DeviceStream {
 public:
  explicit DeafStream(DeviceStream& stream) : stream_(stream) {}
  Device& device() const noexcept override { return stream_.device(); }
  void record(DeviceEvent& event) override { stream_.record(event); }
  void wait_for(const DeviceEvent&) override {}
  void copy_to_host(std::span<std::byte> to, const std::byte* from) override {
    stream_.copy_to_host(to, from);
  }
  void copy_to_device(std::byte* to, std::span<const std::byte> from) override {
    stream_.copy_to_device(to, from);
  }
  void pack(std::span<std::byte> to, std::span<const PackPiece> table) override {
    stream_.pack(to, table);
  }
  void synchronize() override { stream_.synchronize(); }

 private:
  DeviceStream& stream_;
};

using File = std::optional<std::vector<std::byte>>;

// The I/O thread: the file, or nothing when the snapshot was discarded.
class Writer {
 public:
  Writer(std::shared_ptr<Snapshot> snapshot, std::uint64_t piece)
      : thread_([this, snapshot = std::move(snapshot), piece]() mutable {
          try {
            file_ = file_of(snapshot, piece);
          } catch (const SnapshotDiscarded& error) {
            reason_ = error.what();
            snapshot->wait_all();  // as a save does before it lets go of the memory
          }
          snapshot.reset();
        }) {}
  File file() {
    thread_.join();
    return std::move(file_);
  }
  const std::string& reason() const { return reason_; }

 private:
  File file_;
  std::string reason_;
  std::thread thread_;
};

class Scene {
 public:
  Scene(SceneDevice& device, std::uint32_t seed, bool deaf = false)
      : seed_(seed), random_(seed), device_(device), deaf_(device.train()) {
    StagingOptions options;
    options.slots = 1 + random_() % 2;
    options.block_bytes = 16 << 10;
    if (random_() % 3 == 0) {
      options.memory_budget = options.slots * (7'000'000 + random_() % 3'000'000);
    }
    staging_.emplace(options);
    staging_->attach(deaf ? static_cast<DeviceStream&>(deaf_) : device.train());
    if (random_() % 4 > 0) reserve();
  }

  // Captures a state after a step, writes it while the next step runs. The file, the one there
  // should be, and why there is none.
  struct Outcome {
    File file;
    std::vector<std::byte> expected;
    std::string reason;
  };
  Outcome save() {
    LiveState state = LiveState::random(seed_ + 100'000u * saves_++, 4 + random_() % 20);
    for (CapturedStorage& storage : state.captured) storage.on_device = random_() % 8 > 0;
    const Owned owned{device_, state.live};
    Outcome outcome;
    outcome.expected = state.expected_file();
    const auto mode = static_cast<StageMode>(1 + random_() % 3);
    last_step(state);
    auto snapshot = staging_->begin(state.captured, mode);
    snapshot->attach_writer();
    Writer writer(std::exchange(snapshot, nullptr), 1 + random_() % 60'000);
    step(state);
    outcome.file = writer.file();
    outcome.reason = writer.reason();
    return outcome;
  }

 private:
  // For states alike, which the small storages of most will fit.
  void reserve() {
    LiveState state = LiveState::random(seed_, 4 + random_() % 20);
    for (CapturedStorage& storage : state.captured) storage.on_device = true;
    staging_->reserve(state.captured, random_() % 2 * 1'000'000);
  }
  // Memory that kernels may touch, whatever is thrown meanwhile.
  struct Owned {
    Owned(SceneDevice& owner, std::span<std::byte> bytes) : device(owner), memory(bytes) {
      device.own(memory);
    }
    ~Owned() {
      device.drain();
      device.disown(memory);
    }
    SceneDevice& device;
    std::span<std::byte> memory;
  };
  // At the end of it the state is what it was.
  void last_step(LiveState& state) {
    for (int half = 0; half < 2; ++half) {
      for (std::size_t i = 0; i < state.captured.size(); ++i) {
        if (state.captured[i].on_device) scribble(state.storage(i));
      }
    }
  }
  // Random kernels: what may change at any time at once, what lies behind the gate after it.
  void step(LiveState& state) {
    for (std::size_t i = 0; i < state.captured.size(); ++i) {
      if (state.captured[i].mutation == Mutation::kAnyTime) scribble(state.storage(i));
    }
    for (unsigned write = random_() % 8; write > 0; --write) {
      const auto memory = state.random_range(random_);
      staging_->gate().writable(memory);
      device_.launch([memory, &state] { scribble_behind_gate(state, memory); });
    }
    if (random_() % 3 > 0) {
      staging_->gate().writable_all();
      scribble(state.live);
    }
  }
  void scribble(std::span<std::byte> memory) {
    device_.launch([memory] { LiveState::scribble(memory); });
  }
  static void scribble_behind_gate(LiveState& state, std::span<std::byte> memory) {
    for (std::size_t i = 0; i < state.captured.size(); ++i) {
      if (state.captured[i].mutation != Mutation::kBehindGate) continue;
      const auto storage = state.storage(i);
      std::byte* const first = std::max(storage.data(), memory.data());
      std::byte* const last =
          std::min(storage.data() + storage.size(), memory.data() + memory.size());
      if (first < last) LiveState::scribble({first, last});
    }
  }

  const std::uint32_t seed_;
  std::mt19937 random_;
  SceneDevice& device_;
  DeafStream deaf_;
  std::optional<Staging> staging_;
  std::uint32_t saves_ = 0;
};

}  // namespace millrace::test
