// CheckpointHook: when to save, under which name, which files to keep, what to publish.
//
// Names, defaults, numbering and texts are the reference's; checkpoint_options.h has the options.
// Different on purpose:
//
//  * a file goes only after its successor is durable, and off the train thread;
//  * a new best never writes a regular file anew. On a step that is saved, it is a second name for
//    that file; on another step it is one full file (or, on request, weights only);
//  * a run that is stopped saves where it stopped, and a save inside an epoch is iter_<N>.pth;
//  * options that cannot work are refused at construction, wrong metric names before training where
//    the metrics say their names.
//
// Saves for best, stop, end and on demand are always made; those by interval and by time give way
// as on_busy says. How a save is made is the Checkpointer's part. Train context.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/events/checkpoint_events.h"
#include "millrace/hooks/best_checkpoints.h"
#include "millrace/hooks/checkpoint_options.h"
#include "millrace/hooks/kept_files.h"
#include "millrace/hooks/save_pacing.h"
#include "millrace/runtime/async/task.h"
#include "millrace/runtime/engine/hook.h"

namespace millrace {

class CheckpointStore;

class CheckpointHook final : public Hook {
 public:
  // Throws ConfigError, see checked_options().
  explicit CheckpointHook(CheckpointHookOptions options);

  std::string_view name() const override { return "CheckpointHook"; }
  Priority priority() const override { return Priority::kVeryLow; }
  void attach(RunContext& run) override;
  void subscribe(Subscriptions& on) override;
  std::string save_state() const override;
  void load_state(std::string_view state) override;

  // Whether `step` (finished epochs or iterations) is saved by the interval.
  bool due(std::int64_t step) const { return pacing_.due(step); }
  std::string filename(std::int64_t step) const;

  // Train context. Keeps the file, or no longer, whatever the retention rules say; also a best
  // file, and one that is on its way. Throws ConfigError with the nearest name when the store has
  // no such file, and when it is being removed already.
  void pin(std::string_view name, bool pinned = true);
  // The interval in force, wider than the option's when the stall budget asks for it.
  std::int64_t interval() const noexcept { return pacing_.interval(); }

 private:
  // A file to be: its name and, in a regular series, its step.
  struct Target {
    std::string file;
    std::optional<std::int64_t> step;
    std::int64_t epoch, iter;  // finished, as meta has them
  };
  void before_train(const BeforeTrain& event);
  Task<> after_train_epoch(const AfterTrainEpoch& event);
  Task<> after_train_iter(const AfterTrainIter& event);
  Task<> after_val_epoch(const AfterValEpoch& event);
  void after_train(const AfterTrain& event);
  Task<> on_stop(const StopRequested& event);
  Task<> on_request(const CheckpointRequested& event);
  Task<> on_discarded(const CheckpointDiscarded& event);
  void committed(const CheckpointCommitted& event);
  void failed(const CheckpointFailed& event);
  void given_up(const CheckpointRow& row);
  void last_given_up(const CheckpointRow& row);

  Target target_here() const;  // between two iterations, or after an epoch
  Task<> save_here(std::string reason, bool pinned);
  Task<> save_regular(Target target, std::string reason, bool may_drop, bool pinned);
  Task<> save_best(BestCheckpoints::Improved best, Target target,
                   std::map<std::string, double> scores);
  void link_best(const BestCheckpoints::Improved& best, const Target& target);
  BestCheckpoints::Planned planned(const BestCheckpoints::Improved& best, const Target& target,
                                   std::string file, std::string save_id) const;
  SaveRequest request_for(const Target& target, std::string reason) const;
  void write_hub(const Target& target);
  void write_last(const std::string& path);
  bool holds_state(std::int64_t iter) const;
  void publish(const std::string& file);
  void publish_last();
  void publish_best();
  void restore_lists();
  void adopt_lists(const std::vector<CatalogRow>& rows);
  void make_owed_links();
  void link_owed(const CatalogRow& source, const std::vector<BestCheckpoints::Improved>& owed);
  bool is_mine(const CheckpointRow& row) const;

  const CheckpointHookOptions options_;
  RunContext* run_ = nullptr;
  CheckpointStore* store_ = nullptr;
  SavePacing pacing_;
  KeptFiles kept_;
  BestCheckpoints best_;
  // The regular or full best file that holds the newest saved state, and its save.
  struct Newest {
    std::string file, save_id;
    std::int64_t iter = -1;
  } newest_;
  // The newest regular file of this run, and the newest that is there (its path also from before).
  struct Last {
    std::string file, save_id;
  } last_, durable_last_;
  std::string durable_path_;
  std::set<std::string> published_;    // by this train()
  std::set<std::string> unpublished_;  // on their way at the end, due when they are there
};

}  // namespace millrace
