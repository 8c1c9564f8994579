// A training recorded down to its file operations, with what it promised on the way: what
// crash_check.h holds every disk against that a power cut may leave.
//
// Each is one or two whole runs of the real Runner with CheckpointHook, LocalStorage and catalog,
// with a small model and files in memory. A second run resumes, from the newest checkpoint or from
// an older one, and then trains on other numbers, so that two branches never agree by chance.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "millrace/hooks/checkpoint_options.h"
#include "tests/support/fake_run.h"
#include "tests/support/recording_file_ops.h"
#include "tests/support/temp_dir.h"

namespace millrace::test {

struct CrashPlan {
  std::string name = {};
  std::function<CheckpointHookOptions()> hook = {};
  std::int64_t epochs = 4;  // of 4 iterations; 0: counts iterations
  std::int64_t iters = 0;
  std::vector<double> scores = {};  // of the metric acc, one per validation; none: no validation
  std::int64_t val_interval = 1;
  std::int64_t stop_after = 0;          // finished iterations of the first run
  std::vector<std::int64_t> asks = {};  // for a pinned checkpoint after so many iterations
  enum class Then { kEnd, kResume, kBranch };
  Then then = Then::kEnd;         // kBranch: from the oldest file
  bool long_catalog = false;      // the second run finds it about to be compacted
  bool beside = false;            // checkpoints lie outside of the work dir, last_checkpoint in it
  std::uint64_t block_bytes = 0;  // above 0: direct writes in such blocks
  std::size_t floats = 40;        // of each parameter
  MemoryFileOps::Limits limits = {};
  std::size_t io_threads = 2;
  std::uint64_t delays = 0;  // seed of RecordingFileOps::delay(); 0: none
};

// What a hook was told. It holds from there on.
struct CrashPromise {
  enum class Kind { kCommitted, kRemoved, kPublished };
  Kind kind;
  std::string name;     // of the file
  std::string save_id;  // of a committed one
  bool full = true;     // can be resumed
  bool pointer = true;  // last_checkpoint names it, or a newer one
  bool best = false;
  bool pinned = false;
  bool for_ever = false;  // pinned, or kept by keep_every
};

struct CapturedSave {
  std::vector<std::vector<std::byte>> state;
  std::uint64_t generation = 0;
  bool full = true;
};

class CrashRun {
 public:
  // Trains. Throws what a run throws.
  explicit CrashRun(CrashPlan plan);

  const CrashPlan& plan() const { return plan_; }
  std::string work_dir() const { return (dir_.path() / "run").string(); }
  std::string checkpoints() const;  // their directory
  const DiskLog& log() const { return log_; }
  const std::map<std::string, CapturedSave>& saves() const { return saves_; }
  // By mark. The first kept() of them were made before the log begins.
  const std::vector<CrashPromise>& promises() const { return promises_; }
  std::size_t kept() const { return kept_; }
  std::size_t replaced() const { return replaced_; }  // saves

  // A training on another disk, longer by an epoch, that resumes what it finds.
  std::unique_ptr<FakeRun> again(std::shared_ptr<FileOps> files) const;

 private:
  std::unique_ptr<FakeRun> make(std::shared_ptr<FileOps> files) const;
  void train(Resume resume, bool first);
  void watch(FakeRun& run);
  void committed(const CheckpointRow& row);
  void lengthen_catalog();
  std::string copy_of_oldest() const;

  const CrashPlan plan_;
  TempDir dir_;
  std::shared_ptr<RecordingFileOps> files_;
  std::map<std::string, CapturedSave> saves_;
  std::vector<CrashPromise> promises_;
  std::size_t kept_ = 0, replaced_ = 0;
  DiskLog log_;
};

// One of each kind, with numbers drawn by the seed.
std::vector<CrashPlan> crash_plans(std::uint64_t seed);

}  // namespace millrace::test
