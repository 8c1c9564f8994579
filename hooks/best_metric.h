// Which of two scores of a metric is the better one: the rules of save_best, and how a rule is
// inferred from a metric's name. Pure functions; the registry is filled before training.
//
// Inference, as in the reference (lower case, first hit wins): the name is one of the greater keys;
// is one of the less keys; contains a greater key; contains a less key. A consequence to know: a
// loss whose name contains "acc" or "top" counts as greater, so give those a rule. Keys of
// registered rules are asked after those.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "millrace/io/retention.h"

namespace millrace {

struct BestRule {
  BetterScore better;
  double start = 0;                            // what the first score has to beat
  std::vector<std::string> default_keys = {};  // metrics it is inferred for
};

// Adds or replaces a rule of that name; "greater" and "less" can be replaced too. Before runners
// are made: the table is shared by the process and has no lock.
void register_best_rule(std::string name, BestRule rule);

struct BestMetric {
  std::string key;  // accuracy/top1
  std::string rule;
  BestRule compare;
};

struct RuleKeys {
  std::vector<std::string> greater = {};  // empty: the defaults
  std::vector<std::string> less = {};
};

// The metric with its rule; `rule` empty: inferred. Throws ConfigError with the nearest name for an
// unknown rule, and for a name that no key matches.
BestMetric best_metric(const std::string& key, const std::string& rule, const RuleKeys& keys);
// The rule of that name; throws ConfigError like best_metric().
const BestRule& best_rule(const std::string& name);

// "best_accuracy_top1": what the names of a metric's best files begin with.
std::string best_stem(std::string_view key);

}  // namespace millrace
