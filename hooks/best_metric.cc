#include "millrace/hooks/best_metric.h"

#include <algorithm>
#include <cctype>
#include <limits>
#include <map>
#include <utility>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

using Rules = std::map<std::string, BestRule>;

Rules& rules() {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  static Rules table{
      {"greater",
       {[](double a, double b) { return a > b; },
        -kInfinity,
        {"acc", "top", "AR@", "auc", "precision", "mAP", "mDice", "mIoU", "mAcc", "aAcc"}}},
      {"less", {[](double a, double b) { return a < b; }, kInfinity, {"loss"}}}};
  return table;
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

using Keys = std::vector<std::string>;

bool is_one_of(const std::string& name, const Keys& keys) {
  return std::any_of(keys.begin(), keys.end(),
                     [&](const std::string& key) { return lower(key) == name; });
}

bool contains_one_of(const std::string& name, const Keys& keys) {
  return std::any_of(keys.begin(), keys.end(), [&](const std::string& key) {
    return name.find(lower(key)) != std::string::npos;
  });
}

std::string inferred_rule(const std::string& key, const RuleKeys& keys) {
  const std::string name = lower(key);
  const Keys& greater = keys.greater.empty() ? rules()["greater"].default_keys : keys.greater;
  const Keys& less = keys.less.empty() ? rules()["less"].default_keys : keys.less;
  if (is_one_of(name, greater)) return "greater";
  if (is_one_of(name, less)) return "less";
  if (contains_one_of(name, greater)) return "greater";
  if (contains_one_of(name, less)) return "less";
  for (const auto& [rule, entry] : rules()) {
    const bool asked = rule == "greater" || rule == "less";
    if (!asked && is_one_of(name, entry.default_keys)) return rule;
  }
  throw ConfigError("CheckpointHook.save_best",
                    "Cannot infer the rule for key " + key +
                        ", thus a specific rule must be specified: set rule to greater or less");
}

}  // namespace

void register_best_rule(std::string name, BestRule rule) {
  rules().insert_or_assign(std::move(name), std::move(rule));
}

const BestRule& best_rule(const std::string& name) {
  const auto found = rules().find(name);
  if (found != rules().end()) return found->second;
  std::vector<std::string> names;
  std::string list;
  for (const auto& [known, rule] : rules()) {
    names.push_back(known);
    list += (list.empty() ? "" : ", ") + known;
  }
  throw ConfigError("CheckpointHook.rule",
                    "rule must be greater, less or None, but got " + name + "; known: " + list,
                    nearest_name(name, names));
}

BestMetric best_metric(const std::string& key, const std::string& rule, const RuleKeys& keys) {
  const std::string name = rule.empty() ? inferred_rule(key, keys) : rule;
  return {key, name, best_rule(name)};
}

std::string best_stem(std::string_view key) {
  std::string stem = "best_" + std::string(key);
  std::replace(stem.begin(), stem.end(), '/', '_');
  return stem;
}

}  // namespace millrace
