// Saving beside the step, with real LibTorch: what may go on while a save is under way, what must
// wait, and that the file is the state at capture, bit by bit. Everything is decided by order:
// storage and copier are held by the test, never by time.
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "millrace/events/event_bus.h"
#include "millrace/hooks/default_hooks.h"
#include "millrace/io/pth_reader.h"
#include "millrace/runtime/engine/run.h"
#include "millrace/runtime/engine/run_context.h"
#include "millrace/runtime/staging/state_gate.h"
#include "millrace/runtime/torch/single_device.h"
#include "millrace/runtime/torch/tensor_bytes.h"
#include "tests/support/images.h"
#include "tests/support/temp_dir.h"
#include "tests/torch/support/gated_storage.h"
#include "tests/torch/support/named_tensors.h"
#include "tests/torch/support/small_nets.h"
#include "tests/torch/support/thread_watch.h"

namespace millrace {
namespace {

using Bytes = std::vector<std::byte>;

// Set once, from any thread.
class Signal {
 public:
  void set() {
    {
      const std::scoped_lock lock(mutex_);
      set_ = true;
    }
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return set_; });
  }
  bool is_set() {
    const std::scoped_lock lock(mutex_);
    return set_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

// What was captured, and copies of it taken at that moment.
struct Captured {
  std::vector<std::span<const std::byte>> live;
  std::vector<Bytes> copies;
  std::vector<std::size_t> large;  // parts that only gated writers change, above Staging::kSmall
  std::shared_ptr<const void> handles;

  bool unchanged(std::size_t part) const {
    return std::memcmp(live[part].data(), copies[part].data(), copies[part].size()) == 0;
  }
};

struct Events {  // what a test wants to see, on the train thread
  std::function<void(const BeforeTrainIter&)> before_iter;
  std::function<void(const BeforeOptimizerStep&)> before_step;
  std::function<void(const AfterTrainIter&)> after_iter;
  std::function<void(const AfterTrainEpoch&)> after_epoch;  // right after CheckpointHook
  std::function<void(const CheckpointCaptured&)> captured;
  std::function<void(const CheckpointCommitted&)> committed;
};

// Copies the captured state before staging begins, and passes events on.
class Observer final : public Hook {
 public:
  Observer(Captured& captured, Events& events) : captured_(captured), events_(events) {}
  std::string_view name() const override { return "Observer"; }
  Priority priority() const override { return Priority::kLowest; }
  void attach(RunContext& run) override { run_ = &run; }

  void subscribe(Subscriptions& on) override {
    on.every<BeforeSaveCheckpoint>([this](const BeforeSaveCheckpoint&) { copy(); });
    pass<BeforeTrainIter>(on, &Events::before_iter);
    pass<BeforeOptimizerStep>(on, &Events::before_step);
    pass<AfterTrainIter>(on, &Events::after_iter);
    pass<AfterTrainEpoch>(on, &Events::after_epoch);
    pass<CheckpointCaptured>(on, &Events::captured);
    pass<CheckpointCommitted>(on, &Events::committed);
  }
  RunContext& run() { return *run_; }

 private:
  template <class E>
  void pass(Subscriptions& on, std::function<void(const E&)> Events::*member) {
    on.every<E>([this, member](const E& event) {
      if (events_.*member) (events_.*member)(event);
    });
  }
  void copy() {
    const CapturedState state = run_->strategy.capture(true);
    captured_ = {};
    captured_.handles = state.handles;
    for (const CapturedStorage& storage : state.storages) {
      const std::size_t part = captured_.live.size();
      captured_.live.push_back(storage.bytes);
      captured_.copies.emplace_back(storage.bytes.begin(), storage.bytes.end());
      const bool gated = storage.mutation == Mutation::kBehindGate;
      if (gated && storage.bytes.size() > Staging::kSmall) captured_.large.push_back(part);
    }
  }

  Captured& captured_;
  Events& events_;
  RunContext* run_ = nullptr;
};

constexpr std::int64_t kBatches = 10;
constexpr std::int64_t kBatchSize = 16;

struct Optimizers {
  const char* name;
  OptimizerFactory make;
};
std::vector<Optimizers> optimizers() {
  return {{"adamw", adamw({.lr = 1e-2})}, {"momentum", sgd({.lr = 1e-2, .momentum = 0.9})}};
}

// One run of two epochs that saves at the end of the first, and not again.
class Scene {
 public:
  Scene(const OptimizerFactory& optimizer, StageMode mode, ModelFunctions net = test::mixed_net())
      : model(std::move(net)) {
    parts_.strategy = make_single_device(model, optimizer, {.threads = 1});
    parts_.train = loader(test::labelled_points(kBatches * kBatchSize),
                          {.batch_size = kBatchSize, .shuffle = true});
    parts_.hooks.add(std::make_unique<CheckpointHook>(
        CheckpointHookOptions{.interval = 2, .save_begin = 1, .save_last = false, .mode = mode}));
    auto observer = std::make_unique<Observer>(captured, events);
    observer_ = observer.get();
    parts_.hooks.add(std::move(observer));
  }

  void run(std::function<void()> before_commit, Snapshot::CopyProbe probe = {}) {
    parts_.storage = std::make_unique<test::GatedStorage>(objects_, std::move(before_commit));
    parts_.copy_probe = std::move(probe);
    RunOptions options;
    options.work_dir = folder_.path();
    options.max_epochs = 2;
    options.seed = 5;
    options.log_console = false;
    Runner runner(std::move(options), std::move(parts_));
    RunCommand command;
    command.handle_signals = false;
    run_or_throw(runner, command);
  }

  // The file's storages are the copies taken at capture.
  void expect_file_is_the_state_at_capture() const {
    ASSERT_EQ(test::names_of(*objects_).size(), 1u);
    const auto opened = PthReader::open(objects_->open("epoch_1.pth"));
    ASSERT_TRUE(opened) << opened.fault().text();
    const PthReader& reader = opened.value();
    ASSERT_TRUE(reader.verify());
    ASSERT_EQ(reader.storage_keys().size(), captured.copies.size());
    for (std::size_t part = 0; part < captured.copies.size(); ++part) {
      Bytes bytes(reader.storage_size(std::to_string(part)).value());
      ASSERT_TRUE(reader.read_storage(std::to_string(part), bytes));
      EXPECT_EQ(bytes, captured.copies[part]) << "part " << part;
    }
  }

  Events events;
  Captured captured;
  ModelFunctions model;
  Observer& observer() { return *observer_; }

 private:
  test::TempDir folder_;
  std::shared_ptr<MemoryStorage> objects_ = std::make_shared<MemoryStorage>();
  Parts parts_;
  Observer* observer_ = nullptr;
};

// Changed by training since the capture: parameters, momenta and BatchNorm's statistics, but not
// the frozen parameter.
void expect_training_went_on(const Scene& scene) {
  const Model model(scene.model);
  for (const Model::Entry& entry : model.entries()) {
    const auto bytes = storage_bytes(*entry.tensor);
    for (std::size_t part = 0; part < scene.captured.live.size(); ++part) {
      if (scene.captured.live[part].data() != bytes.data()) continue;
      EXPECT_EQ(scene.captured.unchanged(part), entry.name == "frozen.weight") << entry.name;
    }
  }
}

TEST(Overlap, TrainingGoesOnWhileTheFileIsBeingWritten) {
  for (const Optimizers& optimizer : optimizers()) {
    for (const StageMode mode : {StageMode::kLazy, StageMode::kEager}) {
      SCOPED_TRACE(std::string(optimizer.name) + ", " + std::string(stage_mode_name(mode)));
      Scene scene(optimizer.make, mode);
      Signal storage_may_go_on;
      bool committed = false;
      std::int64_t steps_beside_the_save = 0;
      scene.events.committed = [&](const CheckpointCommitted&) { committed = true; };
      scene.events.after_iter = [&](const AfterTrainIter& e) {
        if (e.at.epoch == 0) return;
        EXPECT_FALSE(committed);
        // Only the training itself releases the storage: had it waited, this would never end.
        if (++steps_beside_the_save == kBatches) storage_may_go_on.set();
      };
      scene.run([&] { storage_may_go_on.wait(); });
      EXPECT_EQ(steps_beside_the_save, kBatches);
      EXPECT_TRUE(committed);
      scene.expect_file_is_the_state_at_capture();
      expect_training_went_on(scene);
    }
  }
}

TEST(Overlap, EagerCopiesEverythingBeforeTrainingGoesOn) {
  Scene scene(adamw(), StageMode::kEager);
  std::mutex mutex;  // staging's own threads copy too
  std::set<std::thread::id> copiers;
  std::size_t parts_copied = 0, parts_at_next_step = 0;
  std::thread::id train_thread;
  scene.events.before_iter = [&](const BeforeTrainIter& e) {
    if (e.at.iter == 0) train_thread = std::this_thread::get_id();
    const std::scoped_lock lock(mutex);
    if (e.at.epoch == 1 && e.batch_idx == 0) parts_at_next_step = parts_copied;
  };
  scene.run({}, [&](std::size_t) {
    const std::scoped_lock lock(mutex);
    ++parts_copied;
    copiers.insert(std::this_thread::get_id());
  });
  EXPECT_TRUE(copiers.contains(train_thread));
  EXPECT_EQ(parts_at_next_step, scene.captured.copies.size());
  scene.expect_file_is_the_state_at_capture();
}

// Holds the copier inside one part: the n-th large one. Lets the train thread copy what it likes.
class HeldCopier {
 public:
  explicit HeldCopier(const Captured& captured, std::size_t nth) : captured_(captured), nth_(nth) {}
  void operator()(std::size_t part) {
    if (std::this_thread::get_id() == train_thread || part != held_part()) return;
    held.set();
    release.wait();
  }
  std::size_t held_part() const { return captured_.large.at(nth_); }
  bool intact() const { return captured_.unchanged(held_part()); }

  Signal held, release;
  std::thread::id train_thread;

 private:
  const Captured& captured_;
  const std::size_t nth_;
};

std::size_t large_parts(const OptimizerFactory& optimizer) {
  Scene scene(optimizer, StageMode::kBlocking);
  scene.run({});
  return scene.captured.large.size();
}

TEST(Overlap, TheOptimizerWaitsForThePartTheCopierIsIn) {
  for (const Optimizers& optimizer : optimizers()) {
    const std::size_t count = large_parts(optimizer.make);
    ASSERT_GE(count, 3u);  // mid, its state, frozen
    for (std::size_t nth = 0; nth < count; ++nth) {
      Scene scene(optimizer.make, StageMode::kLazy);
      HeldCopier copier(scene.captured, nth);
      Signal backward_done;
      std::atomic<bool> stepped = false;
      int train_thread = 0;
      bool frozen = false;
      scene.events.before_iter = [&](const BeforeTrainIter& e) {
        if (e.at.iter == 0) {
          copier.train_thread = std::this_thread::get_id();
          train_thread = test::this_thread();
        }
        // The step may begin when the copier is inside the part.
        if (e.at.epoch == 1 && e.batch_idx == 0) copier.held.wait();
      };
      scene.events.before_step = [&](const BeforeOptimizerStep& e) {
        if (e.at.epoch == 0 || stepped) return;
        EXPECT_FALSE(copier.release.is_set());  // forward and backward did not wait
        backward_done.set();
      };
      scene.events.after_iter = [&](const AfterTrainIter& e) {
        if (e.at.epoch == 1) stepped = true;
      };
      bool stepped_before_release = true;
      bool intact_at_release = false;
      std::jthread releaser([&] {
        backward_done.wait();
        test::until_blocked_or(train_thread, [&] { return stepped.load(); });
        stepped_before_release = stepped;
        const Model model(scene.model);
        frozen = storage_bytes(test::tensor_named(model, "frozen.weight")).data() ==
                 scene.captured.live[copier.held_part()].data();
        // Blocked at the gate: nobody writes while this looks.
        intact_at_release = stepped_before_release ? false : copier.intact();
        copier.release.set();
      });
      scene.run({}, [&](std::size_t part) { copier(part); });
      releaser.join();
      SCOPED_TRACE(std::string(optimizer.name) + ", large part " + std::to_string(nth));
      // Nobody writes a frozen parameter, so nobody waits for it.
      EXPECT_EQ(stepped_before_release, frozen);
      EXPECT_TRUE(frozen || intact_at_release);
      scene.expect_file_is_the_state_at_capture();
      expect_training_went_on(scene);
    }
  }
}

TEST(Overlap, BlockingMeansNothingRunsBeforeTheCommit) {
  for (const Optimizers& optimizer : optimizers()) {
    SCOPED_TRACE(optimizer.name);
    Scene scene(optimizer.make, StageMode::kBlocking);
    int train_thread = 0;
    std::atomic<bool> went_on = false;
    std::atomic<bool> in_commit = false;
    bool went_on_before_commit = true;
    bool committed = false;
    scene.events.before_iter = [&](const BeforeTrainIter& e) {
      if (e.at.iter == 0) train_thread = test::this_thread();
      if (e.at.epoch == 1) went_on = true;
    };
    scene.events.after_epoch = [&](const AfterTrainEpoch& e) {
      EXPECT_TRUE(in_commit || e.at.epoch > 0);
    };
    scene.events.committed = [&](const CheckpointCommitted& e) {
      if (e.row.name == "epoch_1.pth") committed = true;
    };
    scene.events.captured = [&](const CheckpointCaptured& e) {
      EXPECT_NE(e.row.times.durable, SteadyTime());
    };
    scene.run([&] {
      in_commit = true;
      test::until_blocked_or(train_thread, [&] { return went_on.load(); });
      went_on_before_commit = went_on;
    });
    EXPECT_TRUE(in_commit);
    EXPECT_TRUE(committed);
    EXPECT_FALSE(went_on_before_commit);
    scene.expect_file_is_the_state_at_capture();
  }
}

// A hook that writes captured tensors right after the save, through the gate.
TEST(Overlap, AHookWritesThroughTheGate) {
  for (const bool everything : {false, true}) {
    Scene scene(adamw({.lr = 1e-2}), StageMode::kLazy);
    HeldCopier copier(scene.captured, 0);  // mid.weight
    Signal about_to_write;
    std::atomic<bool> wrote = false;
    int train_thread = 0;
    scene.events.before_iter = [&](const BeforeTrainIter& e) {
      if (e.at.iter > 0) return;
      copier.train_thread = std::this_thread::get_id();
      train_thread = test::this_thread();
    };
    scene.events.after_epoch = [&](const AfterTrainEpoch& e) {
      if (e.at.epoch != 0) return;
      const at::Tensor weight = test::tensor_named(Model(scene.model), "mid.weight");
      ASSERT_EQ(storage_bytes(weight).data(), scene.captured.live[copier.held_part()].data());
      copier.held.wait();
      about_to_write.set();
      StateGate& gate = scene.observer().run().gate;
      if (everything) {
        gate.writable_all();
      } else {
        gate.writable(storage_bytes(weight));
      }
      const at::NoGradGuard no_grad;
      weight.fill_(7);
      wrote = true;
    };
    bool wrote_before_release = true;
    bool intact_at_release = false;
    std::jthread releaser([&] {
      about_to_write.wait();
      test::until_blocked_or(train_thread, [&] { return wrote.load(); });
      wrote_before_release = wrote;
      intact_at_release = wrote_before_release ? false : copier.intact();
      copier.release.set();
    });
    scene.run({}, [&](std::size_t part) { copier(part); });
    releaser.join();
    EXPECT_TRUE(wrote);
    EXPECT_FALSE(wrote_before_release);
    EXPECT_TRUE(intact_at_release);
    scene.expect_file_is_the_state_at_capture();
  }
}

// BatchNorm's statistics change in forward, which no gate precedes: they are copied at capture,
// whatever their size.
TEST(Overlap, BuffersAreCopiedOnTheTrainThread) {
  for (const ModelFunctions& net : {test::mixed_net(), test::wide_norm_net()}) {
    Scene scene(sgd({.lr = 1e-2, .momentum = 0.9}), StageMode::kLazy, net);
    std::mutex mutex;
    std::map<std::size_t, std::thread::id> copied_by;
    std::thread::id train_thread;
    scene.events.before_iter = [&](const BeforeTrainIter& e) {
      if (e.at.iter == 0) train_thread = std::this_thread::get_id();
    };
    scene.run({}, [&](std::size_t part) {
      const std::scoped_lock lock(mutex);
      copied_by[part] = std::this_thread::get_id();
    });
    int buffers = 0;
    for (const Model::Entry& entry : Model(net).entries()) {
      if (!entry.buffer) continue;
      for (std::size_t part = 0; part < scene.captured.live.size(); ++part) {
        if (scene.captured.live[part].data() != storage_bytes(*entry.tensor).data()) continue;
        EXPECT_EQ(copied_by.at(part), train_thread) << entry.name;
        ++buffers;
      }
    }
    EXPECT_EQ(buffers, 3);
    scene.expect_file_is_the_state_at_capture();
  }
}

}  // namespace
}  // namespace millrace
