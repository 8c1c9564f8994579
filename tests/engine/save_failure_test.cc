// Saves that fail: what is tried again, what is told, what is left.
#include <gmock/gmock.h>

#include <cerrno>
#include <latch>
#include <set>
#include <thread>

#include "millrace/events/checkpoint_events.h"
#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/io/catalog.h"
#include "millrace/io/local_storage.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpointer.h"
#include "tests/support/controlled_storage.h"
#include "tests/support/fake_run.h"
#include "tests/support/fault_file_ops.h"
#include "tests/support/hold.h"
#include "tests/support/images.h"
#include "tests/support/memory_backed.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

CheckpointHookOptions each_iteration(std::int64_t keep = -1) {
  CheckpointHookOptions options;
  options.interval = 1;
  options.by_epoch = false;
  options.max_keep_ckpts = keep;
  options.mode = StageMode::kBlocking;
  return options;
}

std::vector<std::string> checkpoints(const Storage& storage) {
  std::vector<std::string> names;
  for (const std::string& name : test::names_of(storage)) {
    if (name.ends_with(".pth")) names.push_back(name);
  }
  return names;
}

std::string error_of(test::FakeRun& run) {
  try {
    run.train();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

std::size_t files_begun(const test::FaultFileOps& ops, const std::string& name) {
  std::size_t creates = 0;
  for (const std::string& text : ops.texts()) {
    creates += text.starts_with("create ." + name + ".") ? 1 : 0;
  }
  return creates;
}

struct FaultyRun {
  FaultyRun() : run(dir.path() / "run") {
    run.options.max_iters = 3;
    run.parts.storage = std::make_unique<LocalStorage>(dir.path() / "files", ops);
  }
  test::TempDir dir;
  std::shared_ptr<test::FaultFileOps> ops = std::make_shared<test::FaultFileOps>();
  test::FakeRun run;
};

// The file whose sync failed is lost: its pages may be marked clean. The bytes are still staged.
TEST(SaveFailure, AFailedSyncIsWrittenAgainUnderANewName) {
  FaultyRun faulty;
  faulty.run.parts.hooks.add(
      test::on_event<BeforeOptimizerStep>([&](const BeforeOptimizerStep& e, RunContext&) {
        if (e.at.iter == 0) faulty.ops->fail_next(test::FileOp::kFdatasync, EIO);
      }));
  faulty.run.parts.hooks.add(std::make_unique<CheckpointHook>(each_iteration()));
  EXPECT_EQ(error_of(faulty.run), "no error");
  EXPECT_THAT(faulty.run.log->with("again under a new name"),
              ElementsAre(AllOf(HasSubstr("iter_1.pth"), HasSubstr("fdatasync"),
                                HasSubstr("Input/output error"))));
  const LocalStorage files(faulty.dir.path() / "files");
  EXPECT_THAT(checkpoints(files), ElementsAre("iter_1.pth", "iter_2.pth", "iter_3.pth"));
  // Between the failed sync and the next one another file was created, and the first is gone.
  EXPECT_EQ(files_begun(*faulty.ops, "iter_1.pth"), 2u);
}

TEST(SaveFailure, ASyncThatFailsAgainFailsTheSaveAndTheRunAtItsEnd) {
  FaultyRun faulty;
  faulty.run.parts.hooks.add(
      test::on_event<BeforeOptimizerStep>([&](const BeforeOptimizerStep& e, RunContext&) {
        if (e.at.iter == 1) {
          faulty.ops->fail_next(test::FileOp::kFdatasync, EIO, test::FaultFileOps::kForever);
        }
      }));
  std::vector<std::string> failed;
  faulty.run.parts.hooks.add(test::on_event<CheckpointFailed>(
      [&](const CheckpointFailed& e, RunContext&) { failed.push_back(e.row.name); }, "Failed"));
  faulty.run.parts.hooks.add(std::make_unique<CheckpointHook>(each_iteration(1)));
  EXPECT_THAT(error_of(faulty.run),
              AllOf(HasSubstr("files/iter_2.pth"), HasSubstr("fdatasync"),
                    HasSubstr("Input/output error"), HasSubstr("2 of this run's saves failed")));
  EXPECT_THAT(failed, ElementsAre("iter_2.pth", "iter_3.pth"));
  EXPECT_EQ(faulty.run.runner().progress().iter, 3) << "training went on to its end";
  EXPECT_THAT(checkpoints(LocalStorage(faulty.dir.path() / "files")), ElementsAre("iter_1.pth"))
      << "nothing was given up for a file that is not there";
}

// The row's sync failed: the catalog is written anew, the checkpoint is not.
TEST(SaveFailure, OfACheckpointThatIsThereOnlyTheRecordsAreWrittenAgain) {
  FaultyRun faulty;
  faulty.run.parts.hooks.add(
      test::on_event<BeforeOptimizerStep>([&](const BeforeOptimizerStep& e, RunContext&) {
        if (e.at.iter == 1) faulty.ops->fail_next(test::FileOp::kAppend, EIO);
      }));
  faulty.run.parts.hooks.add(std::make_unique<CheckpointHook>(each_iteration()));
  EXPECT_EQ(error_of(faulty.run), "no error");
  EXPECT_THAT(faulty.run.log->with("again"), ElementsAre(AllOf(HasSubstr("Recording iter_2.pth"),
                                                               HasSubstr("checkpoints.catalog"))));
  EXPECT_EQ(files_begun(*faulty.ops, "iter_2.pth"), 1u);
  LocalStorage files(faulty.dir.path() / "files");
  Catalog catalog(files);
  EXPECT_THAT(catalog.open(), IsEmpty());
  EXPECT_THAT(catalog.rows(), SizeIs(3));
}

// Its file is there and takes part in the rotation; it is the next one that gives up older ones.
TEST(SaveFailure, AFileWithoutARowIsRotatedAsTheOthers) {
  test::TempDir dir;
  test::FakeRun run(dir.path() / "run");
  run.options.max_iters = 3;
  auto files = std::make_shared<MemoryStorage>();
  std::string committing;
  run.parts.storage = std::make_unique<test::ControlledStorage>(
      files, [&](std::string_view name) { committing = name; },
      [&] {
        if (committing == "iter_2.pth") throw StorageError("fdatasync", "the catalog", EIO);
      });
  std::vector<std::string> failed, files_then;
  run.parts.hooks.add(test::on_event<CheckpointFailed>(
      [&](const CheckpointFailed& e, RunContext&) {
        EXPECT_TRUE(e.row.in_place);
        failed.push_back(e.row.name);
        files_then = checkpoints(*files);
      },
      "Failed"));
  run.parts.hooks.add(std::make_unique<CheckpointHook>(each_iteration(1)));
  EXPECT_THAT(error_of(run), HasSubstr("the catalog"));
  EXPECT_THAT(failed, ElementsAre("iter_2.pth"));
  EXPECT_THAT(files_then, ElementsAre("iter_1.pth", "iter_2.pth")) << "nothing is given up for it";
  EXPECT_THAT(checkpoints(*files), ElementsAre("iter_3.pth"));
}

TEST(SaveFailure, OnErrorStopEndsTheRunAtTheNextStage) {
  FaultyRun faulty;
  faulty.run.options.max_iters = 50;
  faulty.run.parts.hooks.add(
      test::on_event<BeforeOptimizerStep>([&](const BeforeOptimizerStep& e, RunContext&) {
        if (e.at.iter == 1) {
          faulty.ops->fail_next(test::FileOp::kPwrite, ENOSPC, test::FaultFileOps::kForever);
        }
      }));
  CheckpointHookOptions options = each_iteration();
  options.on_error = OnSaveError::kStop;
  faulty.run.parts.hooks.add(std::make_unique<CheckpointHook>(options));
  EXPECT_THAT(error_of(faulty.run),
              AllOf(HasSubstr("checkpoint_failed in CheckpointHook"), HasSubstr("on_error is stop"),
                    HasSubstr("No space left on device")));
  EXPECT_LT(faulty.run.runner().progress().iter, 50);
}

// Memory whose removals are held, and which has no room for a third file meanwhile.
class FullStorage final : public test::MemoryBacked {
 public:
  FullStorage(std::shared_ptr<MemoryStorage> files, test::Hold& removal)
      : MemoryBacked(std::move(files)), removal_(removal) {}
  CommitTimes commit(std::string_view name, FileImage& image) override {
    if (name == "iter_3.pth" && !std::exchange(refused_, true)) {
      removal_.wait_until_entered();  // the removal is under way, and holds its bytes
      removal_.release();
      throw StorageError("fallocate", std::string(name), ENOSPC);
    }
    return memory().commit(name, image);
  }
  void retire(std::string_view name) override {
    removal_.enter();
    memory().retire(name);
  }

 private:
  test::Hold& removal_;
  bool refused_ = false;
};

TEST(SaveFailure, AFullDiskWaitsForTheRemovalsUnderWay) {
  test::TempDir dir;
  test::Hold removal;
  auto files = std::make_shared<MemoryStorage>();
  test::FakeRun run(dir.path() / "run");
  run.options.max_iters = 3;
  run.parts.storage = std::make_unique<FullStorage>(files, removal);
  run.parts.hooks.add(std::make_unique<CheckpointHook>(each_iteration(1)));
  EXPECT_EQ(error_of(run), "no error");
  EXPECT_THAT(run.log->with("again under a new name"),
              ElementsAre(HasSubstr("No space left on device")));
  EXPECT_THAT(checkpoints(*files), ElementsAre("iter_3.pth"));
}

// The commit of iter_40.pth is told of, and so iter_20.pth removed, while iter_60.pth is written:
// bytes that a second try finds free, though no removal is under way by then or was before.
TEST(SaveFailure, AFullDiskCountsARemovalThatBeganAndEndedDuringTheWrite) {
  test::TempDir dir;
  test::Hold before_last;
  std::latch freed(1);
  bool refused = false;
  auto files = std::make_shared<MemoryStorage>();
  test::FakeRun run(dir.path() / "run");
  run.options.max_iters = 70;
  run.parts.storage = std::make_unique<test::ControlledStorage>(files, [&](std::string_view name) {
    if (name == "iter_40.pth") before_last.enter();
    if (name != "iter_60.pth" || std::exchange(refused, true)) return;
    freed.wait();
    throw StorageError("fallocate", std::string(name), ENOSPC);
  });
  const auto release = [&](Subscriptions& on, RunContext&) {
    on.every<AfterTrainIter>([&](const AfterTrainIter& e) {
      const std::int64_t done = e.at.iter + 1;
      if (done == 60) before_last.release();
      while (done == 62 && test::names_of(*files).front() == "iter_20.pth") {
        std::this_thread::yield();  // the removal is on an I/O thread
      }
      if (done == 70) freed.count_down();
    });
  };
  run.parts.hooks.add(std::make_unique<test::TestHook>(release, "Frees", Priority::kHighest));
  CheckpointHookOptions options = each_iteration(1);
  options.interval = 20;
  options.mode = StageMode::kLazy;
  run.parts.hooks.add(std::make_unique<CheckpointHook>(options));
  EXPECT_EQ(error_of(run), "no error");
  EXPECT_THAT(run.log->with("Writing iter_60.pth again under a new name"), SizeIs(1));
}

TEST(SaveFailure, AFullDiskWithNothingToRemoveFailsAtOnce) {
  FaultyRun faulty;
  faulty.ops->fail_next(test::FileOp::kFallocate, ENOSPC, 3);
  faulty.run.parts.hooks.add(std::make_unique<CheckpointHook>(each_iteration()));
  EXPECT_THAT(error_of(faulty.run), HasSubstr("No space left on device"));
  EXPECT_THAT(faulty.run.log->with("again under a new name"), IsEmpty());
}

}  // namespace
}  // namespace millrace
