// The state of save_best: which metrics are followed, the best files of each, and those that are on
// their way. CheckpointHook's; train context; no I/O.
//
// Scores live in the message hub under the reference's names (best_score, best_ckpt; with several
// metrics best_score_<key>, best_ckpt_<key>), the files in the hook's state: those that are there,
// and those on their way. A best file counts from the moment it is asked for, and no longer when it
// fails.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/events/stage_events.h"
#include "millrace/hooks/best_metric.h"
#include "millrace/hooks/checkpoint_options.h"
#include "millrace/io/catalog.h"
#include "millrace/io/retention.h"

namespace millrace {

class MessageHub;
class RecordReader;
class RecordWriter;

class BestCheckpoints {
 public:
  // Throws ConfigError for an unknown rule or a metric whose rule cannot be inferred.
  explicit BestCheckpoints(const CheckpointHookOptions& options);

  bool wanted() const noexcept { return automatic_ || !metrics_.empty(); }
  // Before training. `names` of the metrics that validation will give, empty when not known. Throws
  // ConfigError with the nearest name for one that is not among them.
  void check_names(const std::vector<std::string>& names) const;

  struct Improved {
    std::size_t metric;
    std::string key;
    double score;
  };
  // The followed metrics whose score is among the best, in order. Resolves "auto" to the first
  // metric, for good. The first time, a followed metric that is missing is a ConfigError with the
  // nearest name; later, `missing` lists it.
  std::vector<Improved> improved(std::span<const MetricValue> metrics,
                                 std::vector<std::string>& missing);
  // The same for the scores that the catalog has of a state, of a run that ended before it made
  // the files.
  std::vector<Improved> owed(const CatalogRow& row) const;
  // "epoch_3.pth" of a best file's name "best_acc_epoch_3.pth"; nothing for other names.
  std::optional<std::string> series_name(std::string_view name) const;
  // Scores of the followed metrics.
  std::map<std::string, double> scores(std::span<const MetricValue> metrics) const;

  // A file is being made for it; `n` and `unit` are for the log line.
  struct Planned {
    std::size_t metric;
    BestFile file;
    std::int64_t n;
    std::string unit;
  };
  void plan(Planned planned);
  bool planned(std::string_view name) const;
  struct Outcome {
    std::string text;                  // the reference's line
    std::vector<std::string> victims;  // files to retire
  };
  Outcome committed(std::string_view name);
  // One that is in place all the same is kept, and nothing is given up for it.
  void failed(std::string_view name, bool in_place);
  // The same for those whose state was not saved, by save id, before the events say so.
  void forget(const std::function<bool(const std::string& save_id)>& lost);

  // The names to retire now.
  std::vector<std::string> pin(std::string_view name, bool pinned);
  // Whether a best file of that name is pinned, or will be.
  bool pinned(std::string_view name) const;

  // best_score and best_ckpt entries; `directory` is where the files are.
  void write_hub(MessageHub& hub, const std::string& directory) const;
  // The newest best file of every metric, also one that is on its way.
  std::vector<std::string> newest_files() const;

  void save(RecordWriter& out) const;
  void load(RecordReader& in);
  // After a resume, what the catalog of the directory knows better than the file: files that are
  // gone leave only their score behind; files made of the `resumed` state after it was saved are
  // added; of those that were on their way, what is there is committed. Returns the names to retire
  // now.
  std::vector<std::string> reconcile(const std::vector<CatalogRow>& rows,
                                     const CheckpointIdentity& resumed);
  // After that, those that were on their way and are not there, though the file of their state is:
  // `source`, for a second name.
  struct Unmade {
    Improved best;
    CatalogRow source;
  };
  std::vector<Unmade> take_unmade(const std::vector<CatalogRow>& rows);
  // From another program's checkpoint: scores and files as its message hub names them.
  void adopt(const MessageHub& hub, const std::string& directory,
             const std::vector<CatalogRow>& rows);

 private:
  struct Followed {
    BestMetric metric;
    BestFiles files;
    std::vector<BestFile> were_planned = {};  // when the state that was resumed was saved
  };
  void follow(const std::string& key, const std::string& rule);
  BestFiles ahead(std::size_t metric) const;
  void load_metric(RecordReader& in);
  static void add_made_since(Followed& followed, const std::vector<CatalogRow>& rows,
                             const CheckpointIdentity& resumed);
  std::string hub_key(const char* name, const std::string& metric) const;

  std::vector<Followed> metrics_;
  std::vector<Planned> planned_;  // in the order they were asked for
  RuleKeys keys_;
  std::int64_t count_;
  std::string automatic_rule_;
  bool automatic_ = false;  // "auto", and not resolved yet
  bool several_ = false;
  bool seen_ = false;  // a validation was looked at
  // Another program's best of what "auto" will be resolved to.
  std::optional<BestFile> adopted_;
};

}  // namespace millrace
