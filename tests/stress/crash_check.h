// Holds a disk that a power cut left against what a run had promised by then, before and after the
// real recovery.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/io/catalog_log.h"
#include "millrace/io/checkpoint_store.h"
#include "tests/stress/crash_run.h"
#include "tests/support/crash_states.h"

namespace millrace::test {

// What can be wrong, one kind each, by name.
namespace crash_fault {
inline constexpr std::string_view kNone = "no valid checkpoint";
inline constexpr std::string_view kOlder = "older than promised";
inline constexpr std::string_view kHalfWritten = "half-written under a final name";
inline constexpr std::string_view kContent = "not what was captured";
inline constexpr std::string_view kPointer = "last_checkpoint names no valid file";
inline constexpr std::string_view kOldPointer = "last_checkpoint is older than promised";
inline constexpr std::string_view kLost = "a promised file is gone";
inline constexpr std::string_view kBack = "a removed file is back";
inline constexpr std::string_view kRowLost = "a promised row is gone";
inline constexpr std::string_view kRowEarly = "a row before its file";
inline constexpr std::string_view kPin = "a pin is gone";
inline constexpr std::string_view kDigest = "a published name is not its SHA-256";
inline constexpr std::string_view kRecovery = "recovery failed";
}  // namespace crash_fault

struct CrashFault {
  std::string_view kind;
  std::string text;
};

class CrashCheck {
 public:
  explicit CrashCheck(const CrashRun& run);

  // Everything that is wrong with the disk, and with what the store makes of it.
  std::vector<CrashFault> check(const CrashState& state);
  // Of the disk that was checked last.
  bool catalog_is_corrupt() const {
    return catalog_ != nullptr && catalog_->state == CatalogLog::State::corrupt;
  }
  // A whole training that resumes on it.
  std::vector<CrashFault> resume(const CrashState& state);

 private:
  // A file with a checkpoint's name.
  struct Verdict {
    std::string_view fault = {};  // a kind
    std::string text = {};
    std::string save_id = {};
    std::uint64_t generation = 0;
  };
  // A moment of the log, as the number of operations that were made.
  using Moment = std::size_t;
  static constexpr Moment kNever = SIZE_MAX;

  void read_log();
  void note_file(Moment moment, const std::string& path, const std::vector<std::byte>& bytes);
  bool happened(const std::map<std::string, std::vector<Moment>>& moments, const std::string& path,
                Moment after, Moment until) const;
  // Of a committed file: whether its name may be gone by `now`, or be another save's. Never before
  // as many newer ones of its series are promised as the plan keeps, and the pinned ones not then.
  bool given_up(std::size_t mark, Moment now) const;
  std::int64_t newer_of_its_series(std::size_t mark, Moment now) const;

  void check_files(const CrashState& state);
  void check_pointer(const CrashState& state);
  void check_committed(std::size_t mark, const CrashState& state);
  void check_removed(std::size_t mark, const CrashState& state);
  void check_catalog(const CrashState& state);
  void check_recovery(const CrashState& state);
  void check_pins(const CrashState& state, const std::vector<CatalogRow>& rows);
  CheckpointStore::Scan recover(const CrashState& state, CheckpointStore& store);
  const CatalogRow* row_of(const CrashPromise& promise) const;

  std::string path_of(const std::string& name) const { return run_.checkpoints() + "/" + name; }
  const Verdict& verdict(const std::string& path, const std::shared_ptr<const DiskFile>& file);
  Verdict judge(const std::vector<std::byte>& bytes) const;
  Verdict judge_published(const std::string& name, const std::vector<std::byte>& bytes) const;
  // By then: the highest generation of a promised file that can be resumed; 0: none.
  std::uint64_t promised(Moment now, bool pointer) const;
  void fault(std::string_view kind, std::string text);

  const CrashRun& run_;
  std::vector<Moment> promised_;                                        // by mark
  std::map<std::string, std::vector<Moment>> moved_away_, moved_onto_;  // by path
  std::map<std::string, Moment> durable_;                               // by save id
  std::map<std::shared_ptr<const DiskFile>, Verdict> verdicts_;
  std::map<std::shared_ptr<const DiskFile>, CatalogLog> logs_;
  const CatalogLog* catalog_ = nullptr;  // of the disk that is being checked
  std::vector<CrashFault> faults_;
};

}  // namespace millrace::test
