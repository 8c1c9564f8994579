#include "millrace/hooks/best_checkpoints.h"

#include <algorithm>
#include <cstdio>
#include <utility>

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
    if (row.name != file.name) continue;
    const bool same = file.save_id.empty() || file.save_id == row.identity.save_id;
    return same ? &row : nullptr;
  }
  return nullptr;
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

void BestCheckpoints::failed(std::string_view name) {
  std::erase_if(planned_, [&](const Planned& planned) { return planned.file.name == name; });
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
    if (!best->name.empty()) hub.info(path) = directory + "/" + best->name;
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

// metric count, then for each: key, names, save ids, scores, whether each score is known.
void BestCheckpoints::save(RecordWriter& out) const {
  out(static_cast<std::uint64_t>(metrics_.size()));
  for (std::size_t i = 0; i < metrics_.size(); ++i) {
    std::vector<std::string> names, ids;
    std::vector<double> scores;
    std::vector<std::uint8_t> known;
    const BestFiles files = ahead(i);
    for (const BestFile& file : files.files()) {
      names.push_back(file.name);
      ids.push_back(file.save_id);
      scores.push_back(file.score.value_or(0));
      known.push_back(file.score ? 1 : 0);
    }
    out(metrics_[i].metric.key, names, ids, scores, known);
  }
}

void BestCheckpoints::load(RecordReader& in) {
  std::uint64_t metrics = 0;
  in(metrics);
  for (std::uint64_t m = 0; m < metrics; ++m) {
    std::string key;
    std::vector<std::string> names, ids;
    std::vector<double> scores;
    std::vector<std::uint8_t> known;
    in(key, names, ids, scores, known);
    if (ids.size() != names.size() || scores.size() != names.size() ||
        known.size() != names.size()) {
      throw RecordError("the best files of " + key + " differ in number from their scores");
    }
    if (automatic_) {  // it stays what it was resolved to
      follow(key, automatic_rule_);
      automatic_ = false;
    }
    std::vector<BestFile> files;
    for (std::size_t i = 0; i < names.size(); ++i) {
      files.push_back({names[i], ids[i], known[i] ? std::optional(scores[i]) : std::nullopt});
    }
    for (Followed& followed : metrics_) {
      if (followed.metric.key == key) followed.files.restore(files);
    }
  }
}

void BestCheckpoints::reconcile(const std::vector<CatalogRow>& rows,
                                const CheckpointIdentity& resumed) {
  for (Followed& followed : metrics_) {
    const std::string& key = followed.metric.key;
    std::vector<BestFile> files = followed.files.files();
    for (BestFile& file : files) {
      const CatalogRow* row = row_of(rows, file);
      if (row == nullptr) {
        file.name.clear();
        continue;
      }
      const auto score = row->scores.find(key);
      if (score != row->scores.end()) file.score = score->second;
    }
    const std::string prefix = best_stem(key) + "_";
    for (const CatalogRow& row : rows) {
      const auto score = row.scores.find(key);
      const bool known = std::any_of(files.begin(), files.end(),
                                     [&](const BestFile& file) { return file.name == row.name; });
      if (known || score == row.scores.end() || !row.name.starts_with(prefix)) continue;
      if (is_of_state(row.identity, resumed)) {
        files.push_back({row.name, row.identity.save_id, score->second});
      }
    }
    // A score without a file and of no use, or a file without a score: nothing to hold on to.
    std::erase_if(files, [](const BestFile& f) { return f.name.empty() && !f.score; });
    followed.files.restore(std::move(files));
  }
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
      if (row_of(rows, file) == nullptr) file.name.clear();
    }
    return file;
  };
  for (Followed& followed : metrics_) {
    if (auto best = best_of(followed.metric.key)) followed.files.restore({std::move(*best)});
  }
  if (automatic_) adopted_ = best_of("");
}

}  // namespace millrace
