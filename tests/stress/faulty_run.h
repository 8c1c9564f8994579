// A training whose storage fails, with everything it promises on the way and what holds of it
// afterwards: the Runner with CheckpointHook (rotation, best, publishing) and catalog, over a
// directory whose file operations are FaultFileOps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "millrace/events/checkpoint_events.h"
#include "millrace/hooks/checkpoint_options.h"
#include "tests/support/fake_run.h"
#include "tests/support/fault_file_ops.h"

namespace millrace::test {

struct FaultPlan {
  const char* name;
  // What the directory holds: nothing, not even itself; an interrupted run, which is resumed; a
  // finished run of another seed, which is not.
  enum class Start { kFresh, kResumed, kOver } start = Start::kFresh;
  bool by_epoch = true;
  bool direct = false;  // past the page cache
  StageMode mode = StageMode::kLazy;
  OnSaveError on_error = OnSaveError::kContinue;
  std::int64_t keep = 2;
  std::size_t io_threads = 1;  // with one, the calls come in nearly the same order every time
};

// Hears every event of a run before CheckpointHook does. Carried from run to run, because what was
// promised holds for later runs too.
class Promises {
 public:
  explicit Promises(std::int64_t keep) : keep_(keep) {}

  void watch(FakeRun& run);
  // What the events themselves broke: a file removed before its successors were durable.
  const std::vector<std::string>& broken() const { return broken_; }
  // Everything that the directory does not hold as promised; empty when all is well.
  std::vector<std::string> check(const std::filesystem::path& directory) const;
  // The save behind a file of the directory, when it is whole and one of ours.
  std::optional<std::string> save_in(const std::filesystem::path& directory,
                                     const std::string& name) const;
  std::uint64_t generation(const std::string& save_id) const;
  // The highest generation of what is there, and of what was promised and not given up.
  std::uint64_t newest_there(const std::filesystem::path& directory) const;
  std::uint64_t newest_promised() const;

  // Of the last run that was watched.
  bool began = false;        // BeforeTrain
  std::size_t failures = 0;  // told: saves, links and publications
  // Told: saves and links, and how many iterations were finished at the first of them.
  std::size_t failed_saves = 0;
  std::int64_t failed_at = 0;
  std::size_t committed = 0;  // told
  std::size_t published = 0;  // told

 private:
  struct Save {
    std::vector<std::vector<std::byte>> state;
    std::uint64_t generation = 0;
  };
  void captured(const CheckpointRow& row, std::vector<std::vector<std::byte>> state);
  void done(const CheckpointRow& row);
  void failed(const CheckpointRow& row);
  void removed(const RemovedRow& row);
  bool may_hold(const std::string& name, const std::string& save_id) const;

  std::int64_t keep_;
  std::int64_t finished_ = 0;                             // iterations of the run that is watched
  std::map<std::string, Save> saves_;                     // by save id
  std::map<std::string, std::string> held_;               // save id by name: committed, not removed
  std::map<std::string, std::set<std::string>> perhaps_;  // by name: may be in place as well
  std::set<std::string> published_;
  std::vector<std::string> broken_;
};

// One directory in which runs of a plan follow each other.
class FaultyRun {
 public:
  FaultyRun(const std::filesystem::path& root, const FaultPlan& plan);

  // Puts the directory back to what the plan starts from, and forgets later promises.
  void reset();
  // A run of the plan; a later one resumes, and goes on for an epoch more.
  std::unique_ptr<FakeRun> make(bool later);
  // Trains, and returns the error, if any.
  std::optional<std::string> train(FakeRun& run);

  std::filesystem::path directory() const { return root_ / "run"; }
  // Temporary and trash names that lie about.
  std::vector<std::string> leftovers() const;

  std::shared_ptr<FaultFileOps> ops;
  Promises promises;

 private:
  void make_start();
  std::unique_ptr<FakeRun> base(std::uint64_t seed);

  const std::filesystem::path root_;
  const FaultPlan plan_;
  Promises start_promises_;
};

}  // namespace millrace::test
