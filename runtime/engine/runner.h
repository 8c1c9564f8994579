// The runner: owns the parts of one training run and drives them in the reference's order.
//
//     Runner runner({.work_dir = "work/mnist", .max_epochs = 5}, {.strategy = ..., .train = ...});
//     return run(runner);                       // blocking, with signals; or, inside a service:
//     co_await runner.train();                  // on the host's own single-threaded executor
//
// Several runners can live in one process. LibTorch's random generator and thread count are
// process-wide, so exact resume is promised for one training run per process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/events/stage_events.h"
#include "millrace/io/storage.h"
#include "millrace/runtime/async/io_pool.h"
#include "millrace/runtime/async/task.h"
#include "millrace/runtime/engine/data_loader.h"
#include "millrace/runtime/engine/history_buffer.h"
#include "millrace/runtime/engine/hook.h"
#include "millrace/runtime/engine/log_processor.h"
#include "millrace/runtime/engine/logger.h"
#include "millrace/runtime/engine/metric.h"
#include "millrace/runtime/engine/param_schedule.h"
#include "millrace/runtime/engine/run_states.h"
#include "millrace/runtime/engine/strategy.h"

namespace millrace {

class Checkpointer;
class Clock;
class EventBus;
class FileOps;
class MessageHub;

// What a run continues from: nothing, the newest valid checkpoint of its work dir, or a file.
class Resume {
 public:
  Resume() = default;  // nothing
  static Resume automatic() { return Resume(true, {}); }
  static Resume from(std::string path) { return Resume(true, std::move(path)); }

  bool wanted() const noexcept { return wanted_; }
  const std::string& path() const noexcept { return path_; }  // empty: automatic

 private:
  Resume(bool wanted, std::string path) : wanted_(wanted), path_(std::move(path)) {}
  bool wanted_ = false;
  std::string path_;
};

struct RunOptions {
  std::filesystem::path work_dir = {};  // required; created
  std::int64_t max_epochs = 0;          // exactly one of max_epochs and max_iters is above 0
  std::int64_t max_iters = 0;
  std::int64_t val_begin = 1;
  std::optional<std::int64_t> val_interval = {};  // default 1 epoch, or 1000 iterations
  std::optional<std::uint64_t> seed = {};         // default: drawn, logged and saved
  std::string experiment_name = {};               // default: the time of the start
  std::string load_from = {};                     // weights to start from
  Resume resume = {};
  LogLevel log_level = LogLevel::kInfo;
  bool log_console = true;
  LogProcessorOptions log_processor = {};
  std::function<void(LogLevel, std::string_view)> log_sink = {};  // every line, for hosts
  std::string config_text = {};                                   // kept in meta.cfg
  // Entries that the hub keeps of each scalar, the newest; the reference's number. One takes 16 to
  // 32 bytes, so a long run with many scalars may want fewer. At least log_processor.window_size.
  std::size_t scalar_history = HistoryBuffer::kMaxLength;
  // Memory that staging may take for checkpoints, in bytes; 0: what the state needs. A larger state
  // streams through, and the optimizer then waits for the disk, which the log says.
  std::uint64_t checkpoint_memory_budget = 0;
  IoPool::Options io = {};      // the runner's own pool ...
  IoPool* shared_io = nullptr;  // ... unless the host lends one
};

struct Parts {
  std::unique_ptr<Strategy> strategy;  // required
  std::unique_ptr<DataLoader> train;
  std::unique_ptr<DataLoader> val;  // with metrics, or neither
  std::vector<std::unique_ptr<Metric>> metrics;
  std::vector<std::unique_ptr<ParamSchedule>> param_schedulers;
  HookList hooks;                               // default_hooks()
  RunStates states;                             // of the user's objects, saved in every checkpoint
  std::unique_ptr<Storage> storage;             // for checkpoints; default: a directory, work_dir
  std::shared_ptr<FileOps> file_ops;            // below the directories written to
  std::shared_ptr<const Clock> clock;           // default: the system's
  std::function<void(std::size_t)> copy_probe;  // tests only: Snapshot::CopyProbe
};

class Runner {
 public:
  // Checks options and parts (ConfigError) and creates work_dir and the log file (StorageError).
  // Strategy, hooks and checkpoints are not touched before train().
  Runner(RunOptions options, Parts parts);
  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  HookList& hooks() noexcept;
  RunStates& states() noexcept;
  EventBus& bus() noexcept;
  MessageHub& hub() noexcept;
  Logger& log() noexcept;
  Strategy& strategy() noexcept;
  const Progress& progress() const noexcept;
  const RunOptions& options() const noexcept;
  std::uint64_t seed() const noexcept;
  // The isolated hooks: how often each failed, and whether it is disabled. Also logged when the run
  // ends, if any did.
  std::vector<HookErrors> hook_errors() const;

  // The whole run on the awaiting executor, which must be single-threaded. Ends through clean-up in
  // every case: I/O is drained and AfterRun is published also after an error or a stop, then the
  // first error is thrown; failed saves count as one. After an error the runner is
  // spent: make a new one and resume. Else, calling it again continues where it ended. Until then,
  // clean-up included, a second call throws.
  // The host's Asio cancellation does not reach it: use request_stop().
  Task<> train();

  // Any thread, at any time. The iteration under way finishes, StopRequested is published, train()
  // cleans up and returns normally. Later requests are ignored. It ends one train(): the one that
  // runs, else the next.
  void request_stop(std::string_view reason);
  // Any thread, at any time. A checkpoint of the state after the iteration under way, made by
  // CheckpointHook and never skipped; `pinned`: no retention rule removes it. Where nothing trains,
  // or nobody saves, nothing happens.
  void checkpoint_now(bool pinned = false);
  bool stopped() const noexcept;  // train context, or after train()
  const std::string& stop_reason() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace
