// LocalStorage's protocol under the file system's faults: the order of its calls, and every single
// one of them failing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <thread>

#include "millrace/io/local_storage.h"
#include "millrace/io/object_name.h"
#include "millrace/runtime/async/error.h"
#include "tests/support/fault_file_ops.h"
#include "tests/support/images.h"
#include "tests/support/temp_dir.h"

namespace millrace::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint64_t kBlock = 16384;
constexpr std::size_t kSize = 2 * kBlock + 100;

void append_text(Storage& storage, std::string_view name, std::string_view text) {
  EXPECT_TRUE(storage.append(name, std::as_bytes(std::span(text))));
}

// A storage in <temp>/run over operations that can fail, with the old object "a" in it.
struct Rig {
  explicit Rig(bool direct)
      : storage(dir.path() / "run", ops, WriteOptions{kBlock, direct ? 0 : ~std::uint64_t{0}}) {
    storage.prepare();
    commit_bytes(storage, "a", old_bytes);
    ops->forget_calls();
  }

  std::size_t leftovers(std::string_view suffix) const {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir.path() / "run")) {
      const std::string name = entry.path().filename().string();
      if (is_leftover_name(name) && name.ends_with(suffix)) ++count;
    }
    return count;
  }

  TempDir dir;
  std::vector<std::byte> old_bytes = pattern(5'000, 1);
  std::vector<std::byte> new_bytes = pattern(kSize, 2);
  std::shared_ptr<FaultFileOps> ops = std::make_shared<FaultFileOps>();
  LocalStorage storage;
};

TEST(LocalStorageFault, DirectProtocolInOrder) {
  Rig rig(true);
  commit_bytes(rig.storage, "a", rig.new_bytes);
  EXPECT_THAT(
      rig.ops->texts(),
      ElementsAre("create .a.*.tmp", "fallocate .a.*.tmp 0+32868", "pwrite .a.*.tmp 0+16384",
                  "pwrite .a.*.tmp 16384+16384", "pwrite .a.*.tmp 32768+4096",
                  "ftruncate .a.*.tmp 0+32868", "fdatasync .a.*.tmp", "close .a.*.tmp",
                  "link a .a.*.trash", "rename .a.*.tmp a", "fsync_dir run", "unlink .a.*.trash"));
}

TEST(LocalStorageFault, BufferedProtocolInOrder) {
  Rig rig(false);
  commit_bytes(rig.storage, "b", rig.new_bytes);
  EXPECT_THAT(
      rig.ops->texts(),
      ElementsAre("create .b.*.tmp", "fallocate .b.*.tmp 0+32868", "pwrite .b.*.tmp 0+16384",
                  "sync_range .b.*.tmp 0+16384", "pwrite .b.*.tmp 16384+16384",
                  "sync_range .b.*.tmp 16384+16384", "sync_range .b.*.tmp 0+16384",
                  "drop_cache .b.*.tmp 0+16384", "pwrite .b.*.tmp 32768+100",
                  "sync_range .b.*.tmp 32768+100", "sync_range .b.*.tmp 16384+16384",
                  "drop_cache .b.*.tmp 16384+16384", "fdatasync .b.*.tmp", "close .b.*.tmp",
                  "link b .b.*.trash", "rename .b.*.tmp b", "fsync_dir run"));
}

TEST(LocalStorageFault, RetireAndPrepareInOrder) {
  Rig rig(true);
  rig.storage.retire("a");
  EXPECT_THAT(rig.ops->texts(),
              ElementsAre("rename a .a.*.trash", "fsync_dir run", "unlink .a.*.trash"));
  rig.ops->forget_calls();
  LocalStorage(rig.dir.path() / "x" / "y", rig.ops).prepare();
  const std::string parent = rig.dir.path().filename().string();
  EXPECT_THAT(rig.ops->texts(),
              ElementsAre("stat y", "stat x", "stat " + parent, "mkdir x", "fsync_dir " + parent,
                          "mkdir y", "fsync_dir x", "list y", "create .probe.*.tmp",
                          "close .probe.*.tmp", "unlink .probe.*.tmp"));
}

TEST(LocalStorageFault, LinkInOrder) {
  Rig rig(true);
  commit_bytes(rig.storage, "best", rig.new_bytes);
  rig.ops->forget_calls();
  EXPECT_TRUE(rig.storage.link("a", "best"));
  EXPECT_THAT(rig.ops->texts(), ElementsAre("link a .best.*.tmp", "link best .best.*.trash",
                                            "rename .best.*.tmp best", "unlink .best.*.tmp",
                                            "fsync_dir run", "unlink .best.*.trash"));
  EXPECT_TRUE(rig.storage.link("a", "best")) << "both are one file now";
  EXPECT_EQ(rig.leftovers(""), 0U);
}

TEST(LocalStorageFault, AppendSyncsTheDirectoryOfANewNameOnly) {
  Rig rig(true);
  append_text(rig.storage, "log", "one");
  EXPECT_THAT(rig.ops->texts(),
              ElementsAre("open_append log", "open_append log new", "append log 0+3",
                          "fdatasync log", "close log", "fsync_dir run"));
  rig.ops->forget_calls();
  append_text(rig.storage, "log", "two");
  EXPECT_THAT(rig.ops->texts(),
              ElementsAre("open_append log", "append log 0+3", "fdatasync log", "close log"));
  rig.ops->forget_calls();
  LocalStorage next(rig.dir.path() / "run", rig.ops);
  append_text(next, "log", "three");
  EXPECT_EQ(rig.ops->count(FileOp::kFsyncDir), 1U) << "its maker may have died before it";
}

TEST(LocalStorageFault, AProbeThatCannotBeClosedIsToldAndLeavesNothing) {
  Rig rig(true);
  rig.ops->fail_next(FileOp::kClose, ENOSPC);
  try {
    rig.storage.prepare();
    FAIL() << "closing the probe failed in silence";
  } catch (const StorageError& error) {
    EXPECT_EQ(error.operation(), "close");
    EXPECT_EQ(error.error_number(), ENOSPC);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("choose another directory"));
  }
  EXPECT_EQ(rig.ops->texts().back().substr(0, 14), "unlink .probe.");
  rig.ops->fail_next(FileOp::kClose, EINTR);
  rig.storage.prepare();  // the descriptor is gone all the same
}

TEST(LocalStorageFault, AppendSyncsTheDirectoryAgainAfterThatFailed) {
  Rig rig(true);
  append_text(rig.storage, "log", "one");
  append_text(rig.storage, "other", "one");
  rig.ops->fail_next(FileOp::kFsyncDir, EIO);
  EXPECT_THROW(rig.storage.retire("a"), StorageError);
  rig.ops->forget_calls();
  append_text(rig.storage, "log", "two");
  append_text(rig.storage, "other", "two");
  EXPECT_EQ(rig.ops->count(FileOp::kFsyncDir), 2U);
}

struct FaultCase {
  bool direct;
  int error_number;
  bool forever;
};

class EveryCall : public ::testing::TestWithParam<FaultCase> {
 protected:
  // Runs `act` with the n-th call failing, for every n there is.
  template <class Act>
  void for_every_call(Act act) {
    for (std::size_t n = 1;; ++n) {
      SCOPED_TRACE("call " + std::to_string(n));
      Rig rig(GetParam().direct);
      rig.ops->fail_at(n, GetParam().error_number, GetParam().forever);
      if (!act(rig, n)) {
        EXPECT_GT(n, 3U);
        return;
      }
      if (HasFatalFailure() || HasNonfatalFailure()) return;
    }
  }

  // The first failed call of a run, or nothing when the fault was not reached.
  static const FileCall* first_failure(const std::vector<FileCall>& calls) {
    for (const FileCall& call : calls) {
      if (call.result == -GetParam().error_number) return &call;
    }
    return nullptr;
  }

  static void expect_names(const StorageError& error, const FileCall& failed) {
    EXPECT_EQ(error.error_number(), GetParam().error_number);
    EXPECT_THAT(error.what(), HasSubstr(error.operation() + " " + error.path()));
    EXPECT_THAT(error.what(), HasSubstr(std::strerror(GetParam().error_number)));
    EXPECT_EQ(error.path(), failed.path);
  }

  static void expect_no_sync_twice(const std::vector<FileCall>& calls) {
    std::multiset<std::string> synced;
    for (const FileCall& call : calls) {
      if (call.op == FileOp::kFdatasync || call.op == FileOp::kFsyncDir) synced.insert(call.path);
    }
    for (const std::string& path : synced) EXPECT_EQ(synced.count(path), 1U) << path;
  }
};

class EveryCallOfACommit : public EveryCall {
 protected:
  // `commit` is to put rig.new_bytes under the name "a".
  template <class Commit>
  void expect_a_whole_object(Commit commit) {
    for_every_call([&](Rig& rig, std::size_t) {
      bool threw = false;
      try {
        commit(rig);
      } catch (const StorageError& error) {
        threw = true;
        const auto calls = rig.ops->calls();
        expect_names(error, *first_failure(calls));
      }
      const auto calls = rig.ops->calls();
      rig.ops->clear_faults();
      const FileCall* failed = first_failure(calls);
      if (failed == nullptr) return false;
      expect_no_sync_twice(calls);
      EXPECT_EQ(rig.ops->open_descriptors(), 0U);
      expect_old_or_new(rig, threw, *failed);

      rig.storage.prepare();
      EXPECT_EQ(rig.leftovers(""), 0U);
      rig.ops->forget_calls();
      commit(rig);
      EXPECT_TRUE(read_all(rig.storage, "a") == rig.new_bytes);
      EXPECT_NE(rig.ops->calls().front().path, calls.front().path) << "a temporary name came back";
      return true;
    });
  }

  static void expect_old_or_new(Rig& rig, bool threw, const FileCall& failed) {
    EXPECT_THAT(names_of(rig.storage), ElementsAre("a"));
    EXPECT_TRUE(threw || failed.op == FileOp::kUnlink || failed.op == FileOp::kDropCache)
        << failed.text() << " failed in silence";
    const bool renamed = !threw || failed.op == FileOp::kFsyncDir;
    EXPECT_TRUE(read_all(rig.storage, "a") == (renamed ? rig.new_bytes : rig.old_bytes));
    if (GetParam().forever) return;
    EXPECT_EQ(rig.leftovers(".tmp"), 0U);
    const bool keeps_old = failed.op == FileOp::kFsyncDir || failed.op == FileOp::kUnlink;
    EXPECT_EQ(rig.leftovers(".trash"), keeps_old ? 1U : 0U);
  }
};

TEST_P(EveryCallOfACommit, KeepsAWholeObject) {
  expect_a_whole_object([](Rig& rig) { commit_bytes(rig.storage, "a", rig.new_bytes); });
}

TEST_P(EveryCallOfACommit, ByNameKeepsAWholeObject) {
  expect_a_whole_object([](Rig& rig) {
    BytesImage image(rig.new_bytes);
    rig.storage.commit_named("stem", image, [] { return std::string("a"); });
  });
}

class EveryCallOfALink : public EveryCall {
 protected:
  // The first failure that is told; an unlink that fails is not, and what follows it may fail too.
  static const FileCall* told_failure(const std::vector<FileCall>& calls) {
    for (const FileCall& call : calls) {
      if (call.result == -GetParam().error_number && call.op != FileOp::kUnlink) return &call;
    }
    return first_failure(calls);
  }

  // Links "a" over "best". When `twins` they are one file before already.
  void expect_old_or_new(bool twins) {
    for_every_call([&](Rig& rig, std::size_t n) {
      rig.ops->clear_faults();
      commit_bytes(rig.storage, "best", rig.new_bytes);
      if (twins) rig.storage.link("a", "best");
      rig.ops->forget_calls();
      rig.ops->fail_at(n, GetParam().error_number, GetParam().forever);
      bool threw = false;
      try {
        EXPECT_TRUE(rig.storage.link("a", "best"));
      } catch (const StorageError& error) {
        threw = true;
        const auto calls = rig.ops->calls();
        expect_names(error, *told_failure(calls));
      }
      const auto calls = rig.ops->calls();
      rig.ops->clear_faults();
      const FileCall* failed = told_failure(calls);
      if (failed == nullptr) return false;
      EXPECT_TRUE(threw || failed->op == FileOp::kUnlink);
      EXPECT_THAT(names_of(rig.storage), ElementsAre("a", "best"));
      EXPECT_TRUE(read_all(rig.storage, "a") == rig.old_bytes);
      const bool linked = twins || !threw || failed->op == FileOp::kFsyncDir;
      EXPECT_TRUE(read_all(rig.storage, "best") == (linked ? rig.old_bytes : rig.new_bytes));
      rig.storage.prepare();
      EXPECT_EQ(rig.leftovers(""), 0U);
      EXPECT_TRUE(rig.storage.link("a", "best"));
      EXPECT_TRUE(read_all(rig.storage, "best") == rig.old_bytes);
      return true;
    });
  }
};

TEST_P(EveryCallOfALink, LeavesTheOldObjectOrTheNew) { expect_old_or_new(false); }
TEST_P(EveryCallOfALink, LeavesTwinsAsTheyAre) { expect_old_or_new(true); }

class EveryCallOfAnAppend : public EveryCall {};

TEST_P(EveryCallOfAnAppend, LeavesAPrefix) {
  for (const bool fresh : {true, false}) {
    for_every_call([&](Rig& rig, std::size_t n) {
      rig.ops->clear_faults();
      const std::string before = fresh ? "" : "before,";
      if (!fresh) append_text(rig.storage, "log", before);
      rig.ops->forget_calls();
      rig.ops->limit_writes(4);
      rig.ops->fail_at(n, GetParam().error_number, GetParam().forever);
      try {
        append_text(rig.storage, "log", "0123456789");
      } catch (const StorageError& error) {
        const auto calls = rig.ops->calls();
        expect_names(error, *first_failure(calls));
      }
      const auto calls = rig.ops->calls();
      rig.ops->clear_faults();
      const FileCall* failed = first_failure(calls);
      if (failed == nullptr) return false;
      expect_no_sync_twice(calls);
      EXPECT_EQ(rig.ops->open_descriptors(), 0U);
      const bool there = names_of(rig.storage).size() == 2;
      EXPECT_TRUE(there || fresh);
      const std::string left = there ? read_text(rig.storage, "log") : "";
      EXPECT_TRUE((before + "0123456789").starts_with(left)) << left;
      EXPECT_TRUE(left.starts_with(before)) << left;
      if (failed->op == FileOp::kFdatasync) {
        EXPECT_EQ(calls.back().op, FileOp::kClose) << "went on after a failed sync";
      }
      append_text(rig.storage, "log", "more");
      EXPECT_EQ(read_text(rig.storage, "log"), left + "more");
      return true;
    });
  }
}

TEST_P(EveryCall, FailingInRetireLeavesAllOrNothing) {
  for_every_call([](Rig& rig, std::size_t) {
    bool threw = false;
    try {
      rig.storage.retire("a");
    } catch (const StorageError& error) {
      threw = true;
      const auto calls = rig.ops->calls();
      expect_names(error, *first_failure(calls));
    }
    const auto calls = rig.ops->calls();
    rig.ops->clear_faults();
    const FileCall* failed = first_failure(calls);
    if (failed == nullptr) return false;
    EXPECT_TRUE(threw);
    if (failed->op == FileOp::kRename) {
      EXPECT_TRUE(read_all(rig.storage, "a") == rig.old_bytes);
    } else {
      EXPECT_TRUE(rig.storage.list().empty());
    }
    rig.storage.prepare();
    EXPECT_EQ(rig.leftovers(""), 0U);
    rig.storage.retire("a");
    EXPECT_TRUE(rig.storage.list().empty());
    return true;
  });
}

TEST_P(EveryCall, FailingInPrepareIsToldOrHarmless) {
  for_every_call([](Rig& rig, std::size_t) {
    LocalStorage fresh(rig.dir.path() / "x" / "y", rig.ops);
    try {
      fresh.prepare();
    } catch (const StorageError& error) {
      const auto calls = rig.ops->calls();
      expect_names(error, *first_failure(calls));
    }
    const bool reached = first_failure(rig.ops->calls()) != nullptr;
    rig.ops->clear_faults();
    fresh.prepare();
    commit_text(fresh, "b", "c");
    EXPECT_EQ(read_text(fresh, "b"), "c");
    return reached;
  });
}

const auto kFaultCases = ::testing::Values(
    FaultCase{true, ENOSPC, false}, FaultCase{true, EIO, false}, FaultCase{true, EIO, true},
    FaultCase{false, ENOSPC, false}, FaultCase{false, EIO, false}, FaultCase{false, ENOSPC, true});

std::string case_name(const ::testing::TestParamInfo<FaultCase>& tested) {
  return std::string(tested.param.direct ? "direct_" : "buffered_") +
         (tested.param.error_number == EIO ? "eio_" : "enospc_") +
         (tested.param.forever ? "forever" : "once");
}

INSTANTIATE_TEST_SUITE_P(Faults, EveryCall, kFaultCases, case_name);
INSTANTIATE_TEST_SUITE_P(Faults, EveryCallOfACommit, kFaultCases, case_name);
INSTANTIATE_TEST_SUITE_P(Faults, EveryCallOfALink, kFaultCases, case_name);
INSTANTIATE_TEST_SUITE_P(Faults, EveryCallOfAnAppend, kFaultCases, case_name);

class ToleratedFault : public ::testing::TestWithParam<bool> {};

TEST_P(ToleratedFault, InterruptedCallsAreRepeated) {
  Rig rig(GetParam());
  for (const FileOp op : {FileOp::kCreate, FileOp::kFallocate, FileOp::kPwrite, FileOp::kFtruncate,
                          FileOp::kSyncRange, FileOp::kOpenRead, FileOp::kPread}) {
    rig.ops->fail_next(op, EINTR, 3);
  }
  commit_bytes(rig.storage, "a", rig.new_bytes);
  EXPECT_TRUE(read_all(rig.storage, "a") == rig.new_bytes);
}

TEST_P(ToleratedFault, InterruptedAndShortAppendsAreContinued) {
  Rig rig(GetParam());
  for (const FileOp op : {FileOp::kOpenAppend, FileOp::kAppend}) {
    rig.ops->fail_next(op, EINTR, 3);
  }
  rig.ops->limit_writes(2);
  append_text(rig.storage, "log", "01234");
  EXPECT_EQ(read_text(rig.storage, "log"), "01234");
}

TEST_P(ToleratedFault, ShortWritesAndReadsAreContinued) {
  Rig rig(GetParam());
  rig.ops->limit_writes(5'000);
  rig.ops->limit_reads(777);
  commit_bytes(rig.storage, "a", rig.new_bytes);
  EXPECT_TRUE(read_all(rig.storage, "a") == rig.new_bytes);
  EXPECT_GT(rig.ops->count(FileOp::kPwrite), kSize / 5'000);
}

TEST_P(ToleratedFault, WithoutFallocateOrHardLinks) {
  Rig rig(GetParam());
  rig.ops->fail_next(FileOp::kFallocate, EOPNOTSUPP);
  rig.ops->fail_next(FileOp::kLink, EPERM);
  commit_bytes(rig.storage, "a", rig.new_bytes);
  EXPECT_TRUE(read_all(rig.storage, "a") == rig.new_bytes);
  EXPECT_EQ(rig.leftovers(""), 0U);
}

TEST_P(ToleratedFault, RefusedLinksDoNothing) {
  for (const int refused : {EPERM, EOPNOTSUPP, ENOSYS, EMLINK, EXDEV}) {
    Rig rig(GetParam());
    rig.ops->fail_next(FileOp::kLink, refused);
    EXPECT_FALSE(rig.storage.link("a", "best"));
    EXPECT_EQ(rig.ops->calls().size(), 1U);
    EXPECT_THAT(names_of(rig.storage), ElementsAre("a"));
    EXPECT_EQ(rig.leftovers(""), 0U);
  }
}

TEST_P(ToleratedFault, DirectIoRefusedAtOpenOrWrite) {
  for (const FileOp op : {FileOp::kCreate, FileOp::kPwrite}) {
    Rig rig(true);
    rig.ops->fail_next(op, EINVAL);
    commit_bytes(rig.storage, "a", rig.new_bytes);
    EXPECT_TRUE(read_all(rig.storage, "a") == rig.new_bytes);
    EXPECT_EQ(rig.ops->count(FileOp::kClearDirect), op == FileOp::kPwrite ? 1U : 0U);
    EXPECT_GT(rig.ops->count(FileOp::kSyncRange), 0U) << "not written behind";
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, ToleratedFault, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "direct" : "buffered"; });

TEST(LocalStorageFault, InterruptedSyncIsAFailure) {
  Rig rig(true);
  rig.ops->fail_next(FileOp::kFdatasync, EINTR);
  EXPECT_THROW(commit_bytes(rig.storage, "a", rig.new_bytes), StorageError);
  EXPECT_EQ(rig.ops->count(FileOp::kFdatasync), 1U);
  EXPECT_TRUE(read_all(rig.storage, "a") == rig.old_bytes);
}

TEST(LocalStorageFault, InterruptedSyncOfAnAppendIsAFailure) {
  Rig rig(true);
  rig.ops->fail_next(FileOp::kFdatasync, EINTR);
  EXPECT_THROW(append_text(rig.storage, "log", "one"), StorageError);
  EXPECT_EQ(rig.ops->count(FileOp::kFdatasync), 1U);
  EXPECT_EQ(rig.ops->open_descriptors(), 0U);
}

TEST(LocalStorageFault, NameAskedForWhileNothingHasIt) {
  Rig rig(true);
  BytesImage image(rig.new_bytes);
  rig.storage.commit_named("stem", image, [&] {
    EXPECT_EQ(rig.ops->count(FileOp::kRename), 0U);
    EXPECT_EQ(rig.ops->count(FileOp::kFdatasync), 1U) << "the disk waits for the name";
    return std::string("a");
  });
  EXPECT_EQ(rig.leftovers(""), 0U);
}

TEST(LocalStorageFault, FullDiskSaysWhatIsNeededAndFree) {
  Rig rig(true);
  rig.ops->fail_next(FileOp::kFallocate, ENOSPC);
  HookedImage large(pattern(3 << 20, 3), [](std::uint64_t) { FAIL() << "a byte was written"; });
  try {
    rig.storage.commit("epoch_7.pth", large);
    FAIL() << "committed to a full disk";
  } catch (const StorageError& error) {
    EXPECT_EQ(error.operation(), "fallocate");
    EXPECT_THAT(error.what(), HasSubstr("epoch_7.pth, which needs 3.0 MiB; "));
    EXPECT_THAT(error.what(), HasSubstr(" is free"));
  }
  EXPECT_EQ(rig.leftovers(""), 0U);
}

TEST(LocalStorageFault, UncertainDirectorySyncKeepsBothObjects) {
  Rig rig(true);
  rig.ops->fail_next(FileOp::kFsyncDir, EIO);
  try {
    commit_bytes(rig.storage, "a", rig.new_bytes);
    FAIL() << "an unsynced name counted as durable";
  } catch (const StorageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("uncertain"));
  }
  EXPECT_TRUE(read_all(rig.storage, "a") == rig.new_bytes);
  EXPECT_EQ(rig.leftovers(".trash"), 1U);
}

TEST(LocalStorageFault, HeldWriteShowsOnlyTheOldObject) {
  Rig rig(true);
  rig.ops->hold(FileOp::kFdatasync);
  std::thread writer([&] { commit_bytes(rig.storage, "a", rig.new_bytes); });
  rig.ops->wait_until_held();
  EXPECT_THAT(names_of(rig.storage), ElementsAre("a"));
  EXPECT_TRUE(read_all(rig.storage, "a") == rig.old_bytes);
  rig.ops->release();
  writer.join();
  EXPECT_TRUE(read_all(rig.storage, "a") == rig.new_bytes);
}

}  // namespace
}  // namespace millrace::test
