// Saving beside training, by order and not by time: every test holds the copy or the write where it
// wants it, lets training run as far as it can, and reads back what was committed.
#include "millrace/runtime/engine/checkpointer.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <future>
#include <map>
#include <thread>

#include "millrace/events/checkpoint_events.h"
#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/io/checkpoint_store.h"
#include "millrace/io/local_storage.h"
#include "millrace/runtime/engine/checkpoint_content.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/staging/state_gate.h"
#include "tests/support/controlled_storage.h"
#include "tests/support/fake_run.h"
#include "tests/support/fault_file_ops.h"
#include "tests/support/hold.h"
#include "tests/support/images.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;

using State = std::vector<std::vector<std::byte>>;

// Lines from any thread.
class Order {
 public:
  void add(std::string line) {
    const std::lock_guard lock(mutex_);
    lines_.push_back(std::move(line));
  }
  std::vector<std::string> lines() const {
    const std::lock_guard lock(mutex_);
    return lines_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> lines_;
};

struct CheckpointerTest : ::testing::Test {
  CheckpointerTest() : run(dir.path() / "run") {
    // Captured means: nothing may reach the file from here on.
    run.parts.hooks.add(test::on_event<CheckpointCaptured>(
        [this](const CheckpointCaptured& e, RunContext&) {
          captured.emplace_back(e.row.name, run.strategy->state());
        },
        "Captured"));
    run.parts.hooks.add(std::make_unique<test::TestHook>(
        [this](Subscriptions& on, RunContext&) {
          on.every<BeforeRun>([this](const BeforeRun&) {
            train_thread = gettid();
            train_id = std::this_thread::get_id();
          });
        },
        "Thread", Priority::kHighest));
  }
  void save_every(std::int64_t interval, StageMode mode, bool by_epoch = false) {
    CheckpointHookOptions options;
    options.interval = interval;
    options.by_epoch = by_epoch;
    options.save_last = false;
    options.mode = mode;
    run.parts.hooks.add(std::make_unique<CheckpointHook>(options));
  }
  void into_memory(test::ControlledStorage::OnCommit on_commit) {
    run.parts.storage = std::make_unique<test::ControlledStorage>(files, std::move(on_commit));
  }
  // Stops the copier, and no other thread, inside `part`, from its first byte on.
  void hold_copier_at(std::size_t part) {
    run.parts.copy_probe = [this, part](std::size_t claimed) {
      if (claimed == part && std::this_thread::get_id() != train_id) copier.enter();
    };
  }
  void expect_files_as_captured(const Storage& storage) {
    EXPECT_FALSE(captured.empty());
    for (const auto& [name, state] : captured) {
      const State in_file = test::state_in(storage, name);
      ASSERT_EQ(in_file.size(), state.size()) << name;
      for (std::size_t i = 0; i < state.size(); ++i) EXPECT_EQ(in_file[i], state[i]) << name << i;
    }
  }

  test::TempDir dir;
  test::FakeRun run;
  std::shared_ptr<MemoryStorage> files = std::make_shared<MemoryStorage>();
  std::vector<std::pair<std::string, State>> captured;
  std::atomic<pid_t> train_thread{0};
  std::thread::id train_id;  // written before the first save
  test::Hold copier, commit;
  Order order;
  std::atomic<int> steps{0};
};

class OverlapTest : public CheckpointerTest, public ::testing::WithParamInterface<StageMode> {};
INSTANTIATE_TEST_SUITE_P(, OverlapTest, ::testing::Values(StageMode::kLazy, StageMode::kEager),
                         [](const auto& mode) { return std::string(stage_mode_name(mode.param)); });

// (i) The commit is held until training is over: 49 steps run beside it.
TEST_P(OverlapTest, TrainingGoesOnWhileTheStorageBlocks) {
  run.options.max_iters = 99;
  save_every(50, GetParam());
  into_memory([this](std::string_view) { commit.enter(); });
  run.parts.hooks.add(test::on_event<AfterTrain>([this](const AfterTrain& e, RunContext&) {
    EXPECT_EQ(e.at.iter, 99);
    commit.wait_until_entered();
    EXPECT_TRUE(test::names_of(*files).empty());
    commit.release();
  }));
  run.train();
  ASSERT_EQ(test::names_of(*files).size(), 1u);
  EXPECT_EQ(test::names_of(*files)[0], "iter_50.pth");
  expect_files_as_captured(*files);
  EXPECT_NE(captured[0].second, run.strategy->state());
}

// The same on a real directory, held before the data is synced.
TEST_P(OverlapTest, TrainingGoesOnWhileTheDiskSyncs) {
  run.options.max_iters = 30;
  save_every(10, GetParam());
  const auto ops = std::make_shared<test::FaultFileOps>();
  const auto folder = dir.path() / "run";
  run.parts.storage = std::make_unique<LocalStorage>(folder, ops);
  run.parts.hooks.add(std::make_unique<test::TestHook>([&](Subscriptions& on, RunContext&) {
    on.every<BeforeSaveCheckpoint>([&](const BeforeSaveCheckpoint& e) {
      if (e.at.iter == 9) ops->hold(test::FileOp::kFdatasync);
    });
    on.every<AfterTrainIter>([&](const AfterTrainIter& e) {
      if (e.at.iter != 18) return;
      ops->wait_until_held();
      EXPECT_FALSE(std::filesystem::exists(folder / "iter_10.pth"));
      ops->release();
    });
  }));
  run.train();
  EXPECT_EQ(captured.size(), 3u);
  expect_files_as_captured(LocalStorage(folder));
}

// (ii) The copier is inside body.weight (storage 2): the next forward runs, the step changes what
// lies before it, and waits.
TEST_F(CheckpointerTest, TheStepWaitsAtTheGateForThePartInTheCopiersHands) {
  run.options.max_iters = 6;
  save_every(5, StageMode::kLazy);
  into_memory({});
  hold_copier_at(2);
  run.parts.hooks.add(test::on_event<CheckpointCaptured>(
      [this](const CheckpointCaptured&, RunContext&) { copier.wait_until_entered(); }));
  std::promise<void> at_the_part;
  run.strategy->on_forward = [&] {
    if (!captured.empty()) order.add("forward");
  };
  run.strategy->on_write = [&](std::size_t storage) {
    if (captured.empty()) return;
    order.add("write " + std::to_string(storage));
    if (storage == 1) at_the_part.set_value();
  };
  std::thread release([&] {
    at_the_part.get_future().wait();
    test::wait_until_asleep(train_thread);
    order.add("release");
    copier.release();
  });
  run.train();
  release.join();
  EXPECT_THAT(order.lines(),
              ElementsAre("forward", "write 0", "write 1", "release", "write 2", "write 3"));
  expect_files_as_captured(*files);
}

// (iii) Nothing runs before the commit: the train thread sleeps although nobody makes it wait.
TEST_F(CheckpointerTest, BlockingModeRunsNothingBeforeTheCommit) {
  run.options.max_iters = 7;
  save_every(5, StageMode::kBlocking);
  into_memory([this](std::string_view) {
    test::wait_until_asleep(train_thread);
    order.add("commit");
  });
  run.strategy->on_forward = [&] { order.add("forward"); };
  run.train();
  EXPECT_THAT(order.lines(), ElementsAre("forward", "forward", "forward", "forward", "forward",
                                         "commit", "forward", "forward"));
  expect_files_as_captured(*files);
}

// (iv) A hook after the save writes captured memory, through the gate.
TEST_F(CheckpointerTest, AHookThatWritesAfterTheSaveWaitsAtTheGate) {
  run.options.max_epochs = 2;
  save_every(1, StageMode::kLazy, true);
  into_memory({});
  hold_copier_at(2);
  std::thread release;
  run.parts.hooks.add(
      test::on_event<AfterTrainEpoch>([&](const AfterTrainEpoch& e, RunContext& context) {
        if (e.at.epoch != 0) return;
        copier.wait_until_entered();
        release = std::thread([&] {
          test::wait_until_asleep(train_thread);
          order.add("release");
          copier.release();
        });
        context.gate.writable(std::as_bytes(run.strategy->body()));
        order.add("write");
        for (float& value : run.strategy->body()) value = 7;
      }));
  run.train();
  release.join();
  EXPECT_THAT(order.lines(), ElementsAre("release", "write"));
  EXPECT_EQ(captured.size(), 2u);
  expect_files_as_captured(*files);
}

// The second save is due while the first is being written: it waits, and loses nothing.
TEST_F(CheckpointerTest, ASaveWaitsForTheOneInFlight) {
  run.options.max_iters = 8;
  save_every(3, StageMode::kLazy);
  into_memory([this](std::string_view name) {
    if (name == "iter_3.pth") {
      while (steps < 6) std::this_thread::yield();
      test::wait_until_asleep(train_thread);
    }
    order.add(std::string(name) + " after " + std::to_string(steps));
  });
  run.strategy->on_forward = [this] { ++steps; };
  run.train();
  EXPECT_EQ(order.lines()[0], "iter_3.pth after 6");
  EXPECT_EQ(captured.size(), 2u);
  expect_files_as_captured(*files);
}

// A state that forward changes is copied at capture, whatever the copier does.
TEST_F(CheckpointerTest, ForwardMayRunWhileNothingIsCopiedYet) {
  run.options.max_iters = 6;
  save_every(5, StageMode::kLazy);
  into_memory({});
  hold_copier_at(0);
  run.parts.hooks.add(test::on_event<CheckpointCaptured>(
      [this](const CheckpointCaptured&, RunContext&) { copier.wait_until_entered(); }));
  run.strategy->on_step = [this] {
    if (!captured.empty()) copier.release();
  };
  run.train();
  expect_files_as_captured(*files);
}

// ---- what is in a file

TEST_F(CheckpointerTest, AFileHoldsWhatPythonAndWeNeed) {
  run.options.max_epochs = 1;
  run.options.config_text = "lr: 1";
  run.options.experiment_name = "digits";
  run.parts.param_schedulers.push_back(linear_lr({.span = {.end = 9}}));
  run.parts.hooks.add(
      test::on_event<BeforeSaveCheckpoint>([](const BeforeSaveCheckpoint& e, RunContext&) {
        e.content.set("mine", 42);
        e.content.remove("param_schedulers");
        e.content.sections()["hook/gone"] = "x";
      }));
  save_every(1, StageMode::kAuto, true);
  into_memory({});
  run.train();
  const CheckpointFile file = CheckpointFile::read(*files, "epoch_1.pth");
  std::vector<std::string> keys;
  for (const auto& [key, value] : *file.root().as_mapping()) keys.push_back(*key.as_string());
  EXPECT_THAT(keys, ElementsAre("meta", "state_dict", "message_hub", "optimizer", "mine"));
  const pickle::Value& meta = *file.root().find("meta");
  EXPECT_EQ(meta.find("epoch")->as_int(), 1);
  EXPECT_EQ(meta.find("iter")->as_int(), 4);
  EXPECT_EQ(meta.find("seed")->as_int(), 1);
  EXPECT_EQ(*meta.find("cfg")->as_string(), "lr: 1");
  EXPECT_TRUE(meta.find("experiment_name")->as_string()->starts_with("digits_"));
  EXPECT_NE(meta.find("time"), nullptr);
  EXPECT_NE(meta.find("millrace_version"), nullptr);
  ASSERT_TRUE(file.record().has_value());
  EXPECT_EQ(file.record()->identity.generation, 1u);
  EXPECT_EQ(file.record()->identity.reason, "interval");
  EXPECT_EQ(file.record()->identity.epoch, 1);
  EXPECT_EQ(file.record()->identity.iter, 4);
  for (const char* section : {"rng", "hub", "data", "hook/CheckpointHook", "hook/gone"}) {
    EXPECT_NE(file.section(section), nullptr) << section;
  }
  // Tied parameters share one storage.
  const auto embed = pickle::as_tensor(*file.state_dict().find("embed.weight"));
  const auto head = pickle::as_tensor(*file.state_dict().find("head.weight"));
  EXPECT_EQ(embed->storage_key, head->storage_key);
}

// ---- identities

struct Known {
  std::string parent, id;
  std::uint64_t generation;
};
Known identity(Storage& storage, std::string_view name) {
  const auto known = CheckpointStore(storage, storage).identity(name);
  return {known.value().parent_id, known.value().save_id, known.value().generation};
}

TEST_F(CheckpointerTest, ParentsAndGenerationsChainOverWhatIsDurable) {
  run.options.max_epochs = 4;
  save_every(1, StageMode::kLazy, true);
  into_memory([](std::string_view name) {
    if (name == "epoch_3.pth") throw StorageError("write", "epoch_3.pth", ENOSPC);
  });
  EXPECT_THROW(run.train(), CheckpointError);
  const Known first = identity(*files, "epoch_1.pth");
  const Known second = identity(*files, "epoch_2.pth");
  const Known fourth = identity(*files, "epoch_4.pth");
  EXPECT_EQ(first.parent, "");
  EXPECT_EQ(second.parent, first.id);
  EXPECT_EQ(fourth.parent, second.id) << "the third never existed";
  EXPECT_EQ(first.generation, 1u);
  EXPECT_EQ(second.generation, 2u);
  EXPECT_EQ(fourth.generation, 4u);
}

TEST_F(CheckpointerTest, AFailedCommitKeepsLiveMemoryUntilItIsCopied) {
  run.options.max_iters = 12;
  save_every(5, StageMode::kLazy);
  into_memory([this](std::string_view name) {
    if (name == "iter_5.pth") throw StorageError("write", "iter_5.pth", EIO);
  });
  EXPECT_THROW(run.train(), CheckpointError);
  captured.erase(captured.begin());
  expect_files_as_captured(*files);
}

// A state larger than the budget streams through a small arena while the step waits; the files are
// those of their captures all the same.
TEST(CheckpointerBudget, ALargeStateStreamsAndSaysSo) {
  test::TempDir dir;
  test::FakeRun run(dir.path() / "run", {.floats = 2'000'000});
  run.options.max_iters = 3;
  run.options.checkpoint_memory_budget = std::uint64_t{24} << 20;
  CheckpointHookOptions options;
  options.interval = 1;
  options.by_epoch = false;
  options.mode = StageMode::kLazy;
  run.parts.hooks.add(std::make_unique<CheckpointHook>(options));
  std::map<std::string, State> captured;
  run.parts.hooks.add(
      test::on_event<CheckpointCaptured>([&](const CheckpointCaptured& e, RunContext&) {
        captured[e.row.name] = run.strategy->state();
      }));
  run.train();
  ASSERT_EQ(captured.size(), 3u);
  const LocalStorage files(dir.path() / "run");
  for (const auto& [name, state] : captured) {
    EXPECT_TRUE(test::state_in(files, name) == state) << name;
  }
  EXPECT_THAT(run.log->with("it streams to the disk"), ::testing::SizeIs(1));
}

// Nothing yields between a save at the end of an epoch and the next step's gate, which waits for
// the writer: it must be there by then. So must that of a save that is replaced or asked for.
TEST(CheckpointerBudget, SavesAtTheEndOfAnEpochAndOnDemandStreamToo) {
  for (const OnBusy on_busy : {OnBusy::kWait, OnBusy::kReplace}) {
    test::TempDir dir;
    test::FakeRun run(dir.path() / "run", {.floats = 2'000'000});
    run.options.max_epochs = 3;
    run.options.checkpoint_memory_budget = std::uint64_t{on_busy == OnBusy::kReplace ? 48U : 24U}
                                           << 20;
    CheckpointHookOptions options;
    options.interval = 1;
    options.on_busy = on_busy;
    options.mode = StageMode::kLazy;
    run.parts.hooks.add(std::make_unique<CheckpointHook>(options));
    run.parts.hooks.add(test::on_event<AfterTrainIter>(
        [&](const AfterTrainIter& e, RunContext&) {
          if (e.at.iter == 5) run.runner().checkpoint_now();
        },
        "Request"));
    int discarded = 0;
    std::map<std::string, State> captured;
    run.parts.hooks.add(test::on_event<CheckpointDiscarded>(
        [&](const CheckpointDiscarded&, RunContext&) { ++discarded; }, "Discarded"));
    run.parts.hooks.add(
        test::on_event<CheckpointCaptured>([&](const CheckpointCaptured& e, RunContext&) {
          captured[e.row.name] = run.strategy->state();
        }));
    run.train();
    EXPECT_EQ(discarded, 0);
    ASSERT_EQ(captured.size(), 4u);
    const LocalStorage files(dir.path() / "run");
    for (const auto& [name, state] : captured) {
      EXPECT_TRUE(test::state_in(files, name) == state) << name;
    }
  }
}

TEST(CheckpointerLocks, TwoRunsDoNotShareAStorage) {
  test::TempDir dir;
  const auto shared = dir.path() / "checkpoints";
  test::FakeRun first(dir.path() / "first"), second(dir.path() / "second");
  for (test::FakeRun* run : {&first, &second}) {
    run->options.max_epochs = 1;
    CheckpointHookOptions options;
    options.out_storage = std::make_shared<LocalStorage>(shared);
    run->parts.hooks.add(std::make_unique<CheckpointHook>(options));
  }
  std::string refusal;
  first.parts.hooks.add(test::on_event<BeforeTrain>([&](const BeforeTrain&, RunContext&) {
    std::thread([&] {
      try {
        second.train();
      } catch (const StorageError& error) {
        refusal = error.what();
      }
    }).join();
  }));
  first.train();
  EXPECT_THAT(refusal, ::testing::AllOf(::testing::HasSubstr(shared.string()),
                                        ::testing::HasSubstr("another run")));
}

}  // namespace
}  // namespace millrace
