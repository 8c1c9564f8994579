#include "tests/hooks/reference_model.h"

#include <algorithm>
#include <cstdio>
#include <deque>
#include <limits>
#include <ostream>

namespace millrace::test {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", value);
  return text;
}

bool is_greater(const std::string& key) {
  for (const char* part : {"acc", "map", "top", "auc"}) {
    std::string lower = key;
    std::transform(lower.begin(), lower.end(), lower.begin(), ::tolower);
    if (lower.find(part) != std::string::npos) return true;
  }
  return false;
}

class Model {
 public:
  Model(const Json& config, bool refresh)
      : config_(config), hook_(config["hook"]), refresh_(refresh) {
    by_epoch_ = config["by_epoch"];
    template_ = hook_.value("filename_tmpl", by_epoch_ ? "epoch_{}.pth" : "iter_{}.pth");
    if (hook_.contains("save_best")) metrics_ = strings_of(hook_["save_best"]);
    if (hook_.contains("rule")) rules_ = strings_of(hook_["rule"]);
  }

  void at(const std::string& point) {
    if (point.starts_with("after_train_epoch ")) {
      const std::int64_t step = std::stoll(point.substr(18)) + 1;
      if (by_epoch_ && due(step)) save(step, step, 4 * step);
    } else if (point.starts_with("after_train_iter ")) {
      const std::int64_t step = std::stoll(point.substr(17)) + 1;
      if (!by_epoch_ && due(step)) save(step, 0, step);
    } else if (point.starts_with("after_val_epoch ")) {
      std::int64_t epoch = 0, iter = 0;
      std::sscanf(point.c_str(), "after_val_epoch e%ld i%ld", &epoch, &iter);
      validated(epoch, iter);
    } else if (point == "after_train") {
      publish();
    }
    std::vector<std::string> names;
    for (const auto& [name, facts] : facts_.files) names.push_back(name);
    if (!facts_.last.empty()) names.emplace_back("last_checkpoint");
    std::sort(names.begin(), names.end());
    facts_.log.emplace_back(point, names);
  }

  RunFacts facts() && { return std::move(facts_); }

 private:
  bool due(std::int64_t step) const {
    const std::int64_t interval = hook_.value("interval", -1);
    const std::int64_t begin = hook_.value("save_begin", 0);
    if (interval > 0 && step >= begin && (step - begin) % interval == 0) return true;
    return hook_.value("save_last", true) && step == config_["max"].get<std::int64_t>();
  }

  std::string name_of(std::int64_t step) const {
    std::string name = template_;
    return name.replace(name.find("{}"), 2, std::to_string(step));
  }

  void save(std::int64_t step, std::int64_t epoch, std::int64_t iter) {
    const std::int64_t keep = hook_.value("max_keep_ckpts", -1);
    if (keep > 0 && (kept_.empty() || kept_.back() != step)) {
      if (kept_.size() == static_cast<std::size_t>(keep)) {
        facts_.files.erase(name_of(kept_.front()));
        kept_.pop_front();
      }
      kept_.push_back(step);
    }
    last_ = name_of(step);
    hub_["last_ckpt"] = last_;
    FileFacts file{{"message_hub", "meta", "state_dict"}, epoch, iter, hub_};
    if (hook_.value("save_optimizer", true)) file.keys.emplace_back("optimizer");
    if (hook_.value("save_param_scheduler", true)) file.keys.emplace_back("param_schedulers");
    std::sort(file.keys.begin(), file.keys.end());
    facts_.files[last_] = file;
    facts_.last = last_;
  }

  void validated(std::int64_t epoch, std::int64_t iter) {
    const Json& scores = config_["scores"];
    const std::size_t validation = validations_++;
    if (metrics_.empty()) return;
    if (metrics_ == std::vector<std::string>{"auto"}) metrics_ = {scores.begin().key()};
    bool improved = false;
    for (std::size_t i = 0; i < metrics_.size(); ++i) {
      const std::string& key = metrics_[i];
      const Json& values = scores[key];
      const double score = values[validation % values.size()];
      const bool greater = rules_.empty()       ? is_greater(key)
                           : rules_.size() == 1 ? rules_[0] == "greater"
                                                : rules_[i] == "greater";
      if (best_.contains(key) && !(greater ? score > best_[key] : score < best_[key])) continue;
      improved = true;
      best_[key] = score;
      const std::string suffix = metrics_.size() > 1 ? "_" + key : "";
      hub_["best_score" + suffix] = number(score);
      facts_.files.erase(best_files_[key]);
      std::string name = "best_" + key + "_" + name_of(by_epoch_ ? epoch : iter);
      std::replace(name.begin(), name.end(), '/', '_');
      best_files_[key] = name;
      hub_["best_ckpt" + suffix] = name;
      facts_.files[name] = {{"message_hub", "meta", "state_dict"}, epoch, iter, hub_};
    }
    if (improved && refresh_ && !last_.empty()) save(by_epoch_ ? epoch : iter, epoch, iter);
  }

  void publish() {
    if (!hook_.contains("published_keys")) return;
    std::vector<std::string> sources;
    if (hook_.value("save_last", true) && !last_.empty()) sources.push_back(last_);
    for (const auto& [key, name] : best_files_) sources.push_back(name);
    const std::vector<std::string> keys = strings_of(hook_["published_keys"]);
    for (const std::string& source : sources) {
      FileFacts file = facts_.files.at(source);
      std::erase_if(file.keys, [&](const std::string& key) {
        return std::find(keys.begin(), keys.end(), key) == keys.end();
      });
      file.best.clear();
      if (std::find(keys.begin(), keys.end(), "meta") == keys.end()) {
        file.epoch = file.iter = std::nullopt;
      }
      facts_.files[source.substr(0, source.size() - 4) + "-HASH.pth"] = file;
    }
  }

  const Json& config_;
  const Json& hook_;
  bool refresh_;
  bool by_epoch_;
  std::string template_;
  std::vector<std::string> metrics_, rules_;
  std::size_t validations_ = 0;
  std::deque<std::int64_t> kept_;
  std::string last_;
  std::map<std::string, double> best_;
  std::map<std::string, std::string> best_files_, hub_;
  RunFacts facts_;
};

}  // namespace

void PrintTo(const FileFacts& facts, std::ostream* out) {
  *out << "epoch " << facts.epoch.value_or(-1) << " iter " << facts.iter.value_or(-1) << " with";
  for (const std::string& key : facts.keys) *out << " " << key;
  for (const auto& [key, value] : facts.best) *out << " " << key << "=" << value;
}

std::string without_hash(const std::string& name) {
  const auto dash = name.rfind('-');
  const bool published = name.ends_with(".pth") && dash != std::string::npos &&
                         name.size() - dash == 13;  // -xxxxxxxx.pth
  return published ? name.substr(0, dash) + "-HASH.pth" : name;
}

std::vector<std::string> strings_of(const Json& value) {
  if (value.is_string()) return {value.get<std::string>()};
  return value.get<std::vector<std::string>>();
}

RunFacts recorded_facts(const Json& result) {
  RunFacts facts;
  for (const Json& point : result["log"]) {
    facts.log.emplace_back(point[0].get<std::string>(), point[1].get<std::vector<std::string>>());
    std::sort(facts.log.back().second.begin(), facts.log.back().second.end());
  }
  if (result["last"].is_string()) facts.last = result["last"];
  for (const auto& [name, file] : result["meta"].items()) {
    FileFacts& found = facts.files[name];
    found.keys = file["keys"].get<std::vector<std::string>>();
    if (!file["epoch"].is_null()) found.epoch = file["epoch"].get<std::int64_t>();
    if (!file["iter"].is_null()) found.iter = file["iter"].get<std::int64_t>();
    for (const auto& [key, value] : file["best"].items()) {
      found.best[key] = value.is_string() ? value.get<std::string>() : number(value);
    }
  }
  return facts;
}

RunFacts modelled_facts(const Json& config, const Json& result, bool refresh) {
  Model model(config, refresh);
  for (const Json& point : result["log"]) model.at(point[0].get<std::string>());
  return std::move(model).facts();
}

}  // namespace millrace::test
