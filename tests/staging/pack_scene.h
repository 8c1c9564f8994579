// A state of many small storages and a few large ones, saved step after step. Every file must equal
// the one that a blocking save on the host writes of the same memory.
#pragma once

#include <algorithm>
#include <future>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/staging/device_scene.h"
#include "tests/staging/faulty_device.h"

namespace millrace::test {

struct PackSceneOptions {
  std::uint32_t seed = 1;
  std::size_t storages = 3000;
  std::uint64_t most_bytes = 300;  // of most storages
};

class PackScene {
 public:
  PackScene(SceneDevice& device, const PackSceneOptions& options)
      : random_(options.seed), device_(device), state_(sizes(options), options.seed) {
    for (CapturedStorage& storage : state_.captured) {
      host_state_.push_back(storage);
      storage.on_device = random_() % 50 > 0;
      if (random_() % 3 == 0) storage.mutation = Mutation::kAnyTime;
    }
    device_.own(state_.live);
    StagingOptions staging;
    staging.slots = 1 + options.seed % 2;
    staging_.emplace(staging);
    staging_->attach(device.train());
    staging_->reserve(state_.captured);
  }
  ~PackScene() {
    staging_.reset();
    device_.drain();
    device_.disown(state_.live);
  }
  PackScene(const PackScene&) = delete;
  PackScene& operator=(const PackScene&) = delete;

  struct Outcome {
    File file;
    std::vector<std::byte> expected;
    std::string reason;
  };
  // Two saves of one state: the second follows the first at once, and while it is being staged a
  // step changes every byte.
  std::vector<Outcome> save_twice() {
    device_.drain();
    const auto expected = file_of(host_.begin(host_state_, StageMode::kBlocking));
    std::vector<Outcome> outcomes(2, {std::nullopt, expected, ""});
    for (int half = 0; half < 2; ++half) scribble([](const auto&) { return true; });  // a last step
    for (const bool step : {false, true}) {
      auto snapshot = staging_->begin(state_.captured, static_cast<StageMode>(1 + random_() % 3));
      Writer writer(std::exchange(snapshot, nullptr), 1 << 20);
      if (step) this->step();
      outcomes[step].file = writer.file();
      outcomes[step].reason = writer.reason();
    }
    return outcomes;
  }

 private:
  std::vector<std::uint64_t> sizes(const PackSceneOptions& options) {
    std::vector<std::uint64_t> made;
    for (std::size_t i = 0; i < options.storages; ++i) {
      made.push_back(random_() % 10 == 0 ? 0 : random_() % options.most_bytes + 1);
    }
    for (const std::uint64_t size : {kPackedStorage, kPackedStorage + 1, std::uint64_t{300'000}}) {
      made[random_() % made.size()] = size;
    }
    return made;
  }
  void step() {
    scribble([](const auto& each) { return each.mutation == Mutation::kAnyTime; });
    for (int write = 0; write < 3; ++write) {
      staging_->gate().writable(state_.random_range(random_, 5000));
    }
    staging_->gate().writable_all();
    scribble([](const auto& each) { return each.mutation == Mutation::kBehindGate; });
  }
  // One kernel: every byte of those storages on the device becomes another one.
  template <class Which>
  void scribble(Which which) {
    std::vector<std::span<std::byte>> chosen;
    for (std::size_t i = 0; i < state_.captured.size(); ++i) {
      const CapturedStorage& each = state_.captured[i];
      if (each.on_device && which(each)) chosen.push_back(state_.storage(i));
    }
    device_.launch([chosen] {
      for (const auto memory : chosen) LiveState::scribble(memory);
    });
  }

  std::mt19937 random_;
  SceneDevice& device_;
  LiveState state_;
  std::vector<CapturedStorage> host_state_;
  Staging host_;
  std::optional<Staging> staging_;
};

// Files of a scene that are wrong or missing.
inline int wrong_files(PackScene& scene) {
  int wrong = 0;
  for (int save = 0; save < 2; ++save) {
    for (const auto& outcome : scene.save_twice()) {
      wrong += outcome.file == outcome.expected ? 0 : 1;
    }
  }
  return wrong;
}

// A save, and another one in the same arena at once, while the device holds back all copies to the
// host. What memory used again too early makes of the files.
class HeldCopies {
 public:
  HeldCopies(SceneDevice& device, Defect defect)
      : device_(device),
        holding_(device.blocked_until(open_.get_future().share())),
        hold_(device.train().device().make_event()),
        faulty_(device.train().device(), defect, *hold_),
        train_(faulty_.borrow(device.train())) {
    for (CapturedStorage& storage : state_.captured) storage.on_device = true;
    for (std::size_t i = 0; i < 10; ++i) state_.captured[i].mutation = Mutation::kAnyTime;
    device_.own(state_.live);
    holding_->record(*hold_);
    staging_.emplace();
    staging_->attach(*train_);
    staging_->reserve(state_.captured);
  }
  ~HeldCopies() {
    staging_.reset();
    device_.drain();
    device_.disown(state_.live);
  }
  HeldCopies(const HeldCopies&) = delete;
  HeldCopies& operator=(const HeldCopies&) = delete;

  // Everything is put in when it returns.
  std::shared_ptr<Snapshot> begin() { return staging_->begin(state_.captured, StageMode::kEager); }
  void open() { open_.set_value(); }
  bool right(const std::shared_ptr<Snapshot>& snapshot) const {
    return file_of(snapshot) == state_.expected_file();
  }

 private:
  SceneDevice& device_;
  LiveState state_{std::vector<std::uint64_t>(20, 100)};
  std::promise<void> open_;
  std::unique_ptr<DeviceStream> holding_;
  std::unique_ptr<DeviceEvent> hold_;
  FaultyDevice faulty_;
  std::unique_ptr<DeviceStream> train_;
  std::optional<Staging> staging_;
};

}  // namespace millrace::test
