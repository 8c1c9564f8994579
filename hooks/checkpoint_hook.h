// CheckpointHook: when to save, under which name, and which older files to give up.
//
// Names, defaults, numbering and texts are the reference's. Different on purpose: files are removed
// only after their successor is durable, and off the train thread; a run that is stopped saves
// where it stopped; options that cannot work are refused at construction.
//
// How a save is made is the Checkpointer's part. Train context.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/events/checkpoint_events.h"
#include "millrace/io/retention.h"
#include "millrace/runtime/async/task.h"
#include "millrace/runtime/engine/hook.h"
#include "millrace/runtime/engine/staging.h"

namespace millrace {

class CheckpointStore;

struct CheckpointHookOptions {
  std::int64_t interval = -1;  // epochs or iterations between saves; below 1: none by interval
  bool by_epoch = true;
  std::int64_t save_begin = 0;  // first epoch or iteration that is saved; 0: the interval's first
  bool save_last = true;        // also after the last epoch or iteration
  bool save_optimizer = true;   // without it, files cannot be resumed
  bool save_param_scheduler = true;
  std::int64_t max_keep_ckpts = -1;  // newest files that are kept; below 1: all
  std::filesystem::path out_dir =
      {};                          // default: work_dir; else out_dir/<last component of work_dir>
  std::string filename_tmpl = {};  // default epoch_{}.pth or iter_{}.pth
  StageMode mode = StageMode::kAuto;
};

class CheckpointHook final : public Hook {
 public:
  // Throws ConfigError: a negative save_begin, a template without exactly one {} or not ending in
  // .pth.
  explicit CheckpointHook(CheckpointHookOptions options);

  std::string_view name() const override { return "CheckpointHook"; }
  Priority priority() const override { return Priority::kVeryLow; }
  void attach(RunContext& run) override;
  void subscribe(Subscriptions& on) override;
  std::string save_state() const override;
  void load_state(std::string_view state) override;

  // Whether `step` (finished epochs or iterations) is saved by the interval.
  bool due(std::int64_t step) const;
  std::string filename(std::int64_t step) const;

 private:
  struct Pending {  // captured, neither committed nor failed yet
    std::int64_t step;
    bool regular;  // takes part in max_keep_ckpts; a mid-epoch stop of an epoch run does not
  };
  void before_train(const BeforeTrain& event);
  Task<> after_train_epoch(const AfterTrainEpoch& event);
  Task<> after_train_iter(const AfterTrainIter& event);
  Task<> on_stop(const StopRequested& event);
  Task<> save(std::int64_t step, std::int64_t epoch, std::int64_t iter, std::string reason);
  Task<> save_as(std::string file, Pending what, std::int64_t epoch, std::int64_t iter,
                 std::string reason);
  void committed(const CheckpointCommitted& event);
  void failed(const CheckpointFailed& event);
  LastN with_pending() const;  // as it will be when what is in flight has been committed

  CheckpointHookOptions options_;
  RunContext* run_ = nullptr;
  CheckpointStore* store_ = nullptr;
  LastN kept_;
  bool list_known_ = false;                 // kept_ is this run's own, not to be taken from the hub
  std::map<std::string, Pending> pending_;  // by file name
  std::vector<std::string> stop_files_;     // mid-epoch files, given up after the next regular one
  std::int64_t saving_step_ = 0;            // for save_state(), which runs inside a save
};

}  // namespace millrace
