#include "millrace/hooks/best_checkpoints.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "millrace/io/record_stream.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/message_hub.h"

namespace millrace {
namespace {

const MetricValue* find_metric(std::span<const MetricValue> metrics, const std::string& key) {
  const auto found = std::find_if(metrics.begin(), metrics.end(),
                                  [&](const MetricValue& value) { return value.name == key; });
  return found == metrics.end() ? nullptr : &*found;
}

[[noreturn]] void refuse_unknown(const std::string& key, const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  throw ConfigError("CheckpointHook.save_best",
                    "the validation gives no metric '" + key + "'; it gives " + list,
                    nearest_name(key, names));
}

const CatalogRow* row_of(const std::vector<CatalogRow>& rows, const BestFile& file) {
  for (const CatalogRow& row : rows) {
    if (row.name == file.name) return file.save_id == row.identity.save_id ? &row : nullptr;
  }
  return nullptr;
}

// What the catalog knows of it.
void complete(BestFile& file, const CatalogRow& row, const std::string& key) {
  const auto score = row.scores.find(key);
  if (score != row.scores.end()) file.score = score->second;
  if (row.pinned) {
    file.pinned = row.pinned;
  } else if (!file.save_id.empty() && file.pinned == false) {
    file.pinned.reset();  // lost with the catalog: it may have been set since
  }
}

// A second name for the state's file, or its weights in a file of their own.
bool is_of_state(const CheckpointIdentity& file, const CheckpointIdentity& state) {
  if (state.save_id.empty()) return false;
  return file.save_id == state.save_id ||
         (file.parent_id == state.save_id && file.iter == state.iter);
}

// What other code reads from runtime_info is one of the few plain kinds.
const std::string* text_info(const MessageHub& hub, const std::string& name) {
  const pickle::Value* value = hub.find_info(name);
  return value != nullptr ? value->as_string() : nullptr;
}

}  // namespace

BestCheckpoints::BestCheckpoints(const CheckpointHookOptions& options)
    : keys_{options.greater_keys, options.less_keys},
      count_(options.keep_best),
      several_(options.save_best.size() > 1) {
  for (std::size_t i = 0; i < options.save_best.size(); ++i) {
    const std::string rule = options.rule.empty()       ? std::string()
                             : options.rule.size() == 1 ? options.rule.front()
                                                        : options.rule[i];
    if (options.save_best[i] == "auto") {
      automatic_ = true;
      automatic_rule_ = rule;
      if (!rule.empty()) best_rule(rule);  // a wrong one is found now
    } else {
      follow(options.save_best[i], rule);
    }
  }
}

void BestCheckpoints::follow(const std::string& key, const std::string& rule) {
  BestMetric metric = best_metric(key, rule, keys_);
  BestFiles files(metric.compare.better, count_);
  metrics_.push_back({std::move(metric), std::move(files)});
}

void BestCheckpoints::check_names(const std::vector<std::string>& names) const {
  if (names.empty()) return;
  for (const Followed& followed : metrics_) {
    const std::string& key = followed.metric.key;
    if (std::find(names.begin(), names.end(), key) == names.end()) refuse_unknown(key, names);
  }
  if (automatic_) best_metric(names.front(), automatic_rule_, keys_);
}

BestFiles BestCheckpoints::ahead(std::size_t metric) const {
  BestFiles files = metrics_[metric].files;
  for (const Planned& planned : planned_) {
    if (planned.metric == metric) files.committed(planned.file);
  }
  return files;
}

std::vector<BestCheckpoints::Improved> BestCheckpoints::improved(
    std::span<const MetricValue> metrics, std::vector<std::string>& missing) {
  if (automatic_) {
    follow(metrics.front().name, automatic_rule_);
    automatic_ = false;
    if (adopted_) metrics_.back().files.restore({*std::exchange(adopted_, std::nullopt)});
  }
  std::vector<Improved> found;
  for (std::size_t i = 0; i < metrics_.size(); ++i) {
    const BestMetric& metric = metrics_[i].metric;
    const MetricValue* value = find_metric(metrics, metric.key);
    if (value == nullptr) {
      std::vector<std::string> names;
      for (const MetricValue& each : metrics) names.push_back(each.name);
      if (!seen_) refuse_unknown(metric.key, names);
      missing.push_back(metric.key);
      continue;
    }
    if (!metric.compare.better(value->value, metric.compare.start)) continue;
    if (ahead(i).qualifies(value->value)) found.push_back({i, metric.key, value->value});
  }
  seen_ = true;
  return found;
}

std::vector<BestCheckpoints::Improved> BestCheckpoints::owed(const CatalogRow& row) const {
  std::vector<Improved> found;
  for (std::size_t i = 0; i < metrics_.size(); ++i) {
    const auto score = row.scores.find(metrics_[i].metric.key);
    if (score == row.scores.end()) continue;
    const BestFiles files = ahead(i);
    const bool made =
        std::any_of(files.files().begin(), files.files().end(),
                    [&](const auto& file) { return file.save_id == row.identity.save_id; });
    if (!made && files.qualifies(score->second)) found.push_back({i, score->first, score->second});
  }
  return found;
}

std::optional<std::string> BestCheckpoints::series_name(std::string_view name) const {
  for (const Followed& followed : metrics_) {
    const std::string prefix = best_stem(followed.metric.key) + "_";
    if (name.starts_with(prefix)) return std::string(name.substr(prefix.size()));
  }
  return std::nullopt;
}

std::map<std::string, double> BestCheckpoints::scores(std::span<const MetricValue> metrics) const {
  std::map<std::string, double> scores;
  for (const Followed& followed : metrics_) {
    const MetricValue* value = find_metric(metrics, followed.metric.key);
    if (value != nullptr) scores[followed.metric.key] = value->value;
  }
  return scores;
}

void BestCheckpoints::plan(Planned planned) { planned_.push_back(std::move(planned)); }

bool BestCheckpoints::planned(std::string_view name) const {
  return std::any_of(planned_.begin(), planned_.end(),
                     [&](const Planned& planned) { return planned.file.name == name; });
}

BestCheckpoints::Outcome BestCheckpoints::committed(std::string_view name) {
  const auto found = std::find_if(planned_.begin(), planned_.end(),
                                  [&](const Planned& p) { return p.file.name == name; });
  if (found == planned_.end()) return {};
  const Planned planned = std::move(*found);
  planned_.erase(found);
  Followed& followed = metrics_[planned.metric];
  char score[32];
  std::snprintf(score, sizeof score, "%0.4f", planned.file.score.value_or(0));
  Outcome outcome;
  outcome.text = "The best checkpoint with " + std::string(score) + " " + followed.metric.key +
                 " at " + std::to_string(planned.n) + " " + planned.unit + " is saved to " +
                 planned.file.name + ".";
  outcome.victims = followed.files.committed(planned.file);
  // A score whose file is elsewhere has no name.
  std::erase_if(outcome.victims, [](const std::string& victim) { return victim.empty(); });
  return outcome;
}

void BestCheckpoints::failed(std::string_view name, bool in_place) {
  for (const Planned& planned : planned_) {
    if (in_place && planned.file.name == name) metrics_[planned.metric].files.found(planned.file);
  }
  std::erase_if(planned_, [&](const Planned& planned) { return planned.file.name == name; });
}

void BestCheckpoints::forget(const std::function<bool(const std::string& save_id)>& lost) {
  std::erase_if(planned_, [&](const Planned& planned) { return lost(planned.file.save_id); });
}

std::vector<std::string> BestCheckpoints::pin(std::string_view name, bool pinned) {
  for (Planned& planned : planned_) {
    if (planned.file.name == name) planned.file.pinned = pinned;
  }
  std::vector<std::string> victims;
  for (Followed& followed : metrics_) {
    for (std::string& victim : followed.files.pin(name, pinned)) {
      if (!victim.empty()) victims.push_back(std::move(victim));
    }
  }
  return victims;
}

bool BestCheckpoints::pinned(std::string_view name) const {
  const auto is_it = [&](const BestFile& file) { return file.name == name && file.pinned == true; };
  for (const Planned& planned : planned_) {
    if (is_it(planned.file)) return true;
  }
  for (const Followed& followed : metrics_) {
    const std::vector<BestFile>& files = followed.files.files();
    if (std::any_of(files.begin(), files.end(), is_it)) return true;
  }
  return false;
}

std::string BestCheckpoints::hub_key(const char* name, const std::string& metric) const {
  return several_ ? std::string(name) + "_" + metric : name;
}

void BestCheckpoints::write_hub(MessageHub& hub, const std::string& directory) const {
  for (std::size_t i = 0; i < metrics_.size(); ++i) {
    const BestFiles files = ahead(i);
    const BestFile* best = files.best();
    const std::string score = hub_key("best_score", metrics_[i].metric.key);
    const std::string path = hub_key("best_ckpt", metrics_[i].metric.key);
    if (best == nullptr) {
      hub.pop_info(score);
      hub.pop_info(path);
      continue;
    }
    hub.info(score) = *best->score;
    if (!best->name.empty()) {
      hub.info(path) = directory + "/" + best->name;
    } else if (const std::string* old = text_info(hub, path)) {
      if (old->starts_with(directory + "/")) hub.pop_info(path);  // it is not there
    }
  }
}

std::vector<std::string> BestCheckpoints::newest_files() const {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < metrics_.size(); ++i) {
    const BestFiles files = ahead(i);
    const BestFile* best = files.best();
    if (best != nullptr && !best->name.empty()) names.push_back(best->name);
  }
  return names;
}

// metric count, then for each: its key and the columns names, save ids, scores, whether each score
// is known, pins (2: unknown), whether each file was only on its way.
void BestCheckpoints::save(RecordWriter& out) const {
  out(static_cast<std::uint64_t>(metrics_.size()));
  for (std::size_t i = 0; i < metrics_.size(); ++i) {
    std::vector<std::string> names, ids;
    std::vector<double> scores;
    std::vector<std::uint8_t> known, pins, on_their_way;
    const auto add = [&](const BestFile& file, bool planned) {
      names.push_back(file.name);
      ids.push_back(file.save_id);
      scores.push_back(file.score.value_or(0));
      known.push_back(file.score ? 1 : 0);
      pins.push_back(file.pinned ? (*file.pinned ? 1 : 0) : 2);
      on_their_way.push_back(planned ? 1 : 0);
    };
    for (const BestFile& file : metrics_[i].files.files()) add(file, false);
    for (const Planned& planned : planned_) {
      if (planned.metric == i) add(planned.file, true);
    }
    out(metrics_[i].metric.key, names, ids, scores, known, pins, on_their_way);
  }
}

void BestCheckpoints::load(RecordReader& in) {
  std::uint64_t metrics = 0;
  in(metrics);
  for (std::uint64_t m = 0; m < metrics; ++m) load_metric(in);
}

void BestCheckpoints::load_metric(RecordReader& in) {
  std::string key;
  std::vector<std::string> names, ids;
  std::vector<double> scores;
  std::vector<std::uint8_t> known, pins, on_their_way;
  in(key, names, ids, scores, known, pins, on_their_way);
  const std::size_t count = names.size();
  if (ids.size() != count || scores.size() != count || known.size() != count ||
      pins.size() != count || on_their_way.size() != count) {
    throw RecordError("the best files of " + key + " differ in number from what belongs to them");
  }
  if (automatic_) {  // it stays what it was resolved to
    follow(key, automatic_rule_);
    automatic_ = false;
  }
  std::vector<BestFile> files, planned;
  for (std::size_t i = 0; i < count; ++i) {
    BestFile file{names[i], ids[i], {}, {}};
    if (known[i] == 1 && scores[i] == scores[i]) file.score = scores[i];
    if (pins[i] < 2) file.pinned = pins[i] == 1;
    (on_their_way[i] == 1 ? planned : files).push_back(std::move(file));
  }
  for (Followed& followed : metrics_) {
    if (followed.metric.key != key) continue;
    followed.files.restore(files);
    followed.were_planned = planned;
  }
}

std::vector<std::string> BestCheckpoints::reconcile(const std::vector<CatalogRow>& rows,
                                                    const CheckpointIdentity& resumed) {
  std::vector<std::string> victims;
  for (Followed& followed : metrics_) {
    const std::string& key = followed.metric.key;
    std::vector<BestFile> files = followed.files.files();
    for (BestFile& file : files) {
      if (const CatalogRow* row = row_of(rows, file)) {
        complete(file, *row, key);
      } else {
        file.name.clear();
        file.pinned = false;
      }
    }
    // A score without a file and of no use, or a file without a score: nothing to hold on to.
    std::erase_if(files, [](const BestFile& f) { return f.name.empty() && !f.score; });
    followed.files.restore(std::move(files));
    for (BestFile file : std::exchange(followed.were_planned, {})) {
      if (const CatalogRow* row = row_of(rows, file)) {
        complete(file, *row, key);
        for (std::string& name : followed.files.committed(std::move(file))) {
          victims.push_back(std::move(name));
        }
      } else {
        followed.were_planned.push_back(std::move(file));
      }
    }
    add_made_since(followed, rows, resumed);
  }
  std::erase_if(victims, [&](const std::string& victim) { return victim.empty(); });
  return victims;
}

void BestCheckpoints::add_made_since(Followed& followed, const std::vector<CatalogRow>& rows,
                                     const CheckpointIdentity& resumed) {
  const std::string& key = followed.metric.key;
  const std::string prefix = best_stem(key) + "_";
  for (const CatalogRow& row : rows) {
    const std::vector<BestFile>& files = followed.files.files();
    const bool known = std::any_of(files.begin(), files.end(),
                                   [&](const BestFile& file) { return file.name == row.name; });
    if (known || !row.scores.contains(key) || !row.name.starts_with(prefix)) continue;
    if (!is_of_state(row.identity, resumed)) continue;
    BestFile file{row.name, row.identity.save_id, {}};
    complete(file, row, key);
    followed.files.found(std::move(file));
  }
}

std::vector<BestCheckpoints::Unmade> BestCheckpoints::take_unmade(
    const std::vector<CatalogRow>& rows) {
  std::vector<Unmade> unmade;
  for (std::size_t i = 0; i < metrics_.size(); ++i) {
    const std::string prefix = best_stem(metrics_[i].metric.key) + "_";
    for (const BestFile& file : std::exchange(metrics_[i].were_planned, {})) {
      const auto source = std::find_if(rows.begin(), rows.end(), [&](const CatalogRow& row) {
        return row.identity.save_id == file.save_id && file.name == prefix + row.name;
      });
      if (source == rows.end() || !file.score || !ahead(i).qualifies(*file.score)) continue;
      unmade.push_back({{i, metrics_[i].metric.key, *file.score}, *source});
    }
  }
  return unmade;
}

void BestCheckpoints::adopt(const MessageHub& hub, const std::string& directory,
                            const std::vector<CatalogRow>& rows) {
  const auto best_of = [&](const std::string& metric) -> std::optional<BestFile> {
    const pickle::Value* found = hub.find_info(hub_key("best_score", metric));
    const auto score = found != nullptr ? found->as_double() : std::nullopt;
    if (!score) return std::nullopt;
    BestFile file{"", "", *score};
    const std::string* path = text_info(hub, hub_key("best_ckpt", metric));
    // Only a file that is here: the path may lead into another run's folder.
    if (path != nullptr && path->starts_with(directory + "/")) {
      file.name = path->substr(directory.size() + 1);
      if (row_of(rows, file) == nullptr) file.name.clear();  // not there, or another run's
    }
    return file;
  };
  for (Followed& followed : metrics_) {
    if (auto best = best_of(followed.metric.key)) followed.files.restore({std::move(*best)});
  }
  if (automatic_) adopted_ = best_of("");
}

}  // namespace millrace
