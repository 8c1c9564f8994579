#include "millrace/hooks/checkpoint_options.h"

#include <set>

#include "millrace/hooks/best_metric.h"
#include "millrace/io/checkpoint_name.h"
#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

constexpr std::string_view kPlaceholder = "{}";

[[noreturn]] void refuse(const std::string& option, const std::string& problem) {
  throw ConfigError("CheckpointHook." + option, problem);
}

void check_template(const std::string& text) {
  const auto first = text.find(kPlaceholder);
  if (first == std::string::npos || text.find(kPlaceholder, first + 1) != std::string::npos) {
    refuse("filename_tmpl", "'" + text + "' needs exactly one {} for the number");
  }
  if (!text.ends_with(".pth") || text.find('/') != std::string::npos || text.starts_with('.')) {
    refuse("filename_tmpl",
           "'" + text + "' must be a file name ending in .pth, or resume cannot find it");
  }
  for (std::string digits = "1"; digits.size() <= 8; digits += '1') {
    std::string name = text;
    if (!is_published_name(name.replace(first, kPlaceholder.size(), digits))) continue;
    refuse("filename_tmpl", "'" + text + "' gives names like " + name +
                                ", which would be taken for a published file");
  }
  if (text.starts_with("best_")) {
    refuse("filename_tmpl", "'" + text + "' would be taken for a best file");
  }
}

void check_best(const CheckpointHookOptions& options) {
  std::set<std::string> seen, stems;
  for (const std::string& key : options.save_best) {
    if (key.empty()) refuse("save_best", "a metric's name is empty");
    if (key == "auto" && options.save_best.size() > 1) {
      refuse("save_best", "Only support one \"auto\" in \"save_best\" list.");
    }
    if (!seen.insert(key).second) {
      refuse("save_best", "Find duplicate element in \"save_best\": '" + key + "'.");
    }
    if (!stems.insert(best_stem(key)).second) {
      refuse("save_best", "'" + key + "' and another metric would both be saved as " +
                              best_stem(key) + "_...pth");
    }
  }
  const std::size_t rules = options.rule.size();
  if (rules > 0 && options.save_best.empty()) {
    refuse("rule", "is given, but save_best names no metric that it is for");
  }
  if (rules > 1 && rules != options.save_best.size()) {
    refuse("rule", "Number of \"rule\" must be 1 or the same as number of \"save_best\", but got " +
                       std::to_string(rules) + ".");
  }
  if (options.keep_best < 1) refuse("keep_best", "must be at least 1");
}

void check_published(const std::vector<std::string>& keys) {
  std::set<std::string> seen;
  for (const std::string& key : keys) {
    if (!seen.insert(key).second) {
      refuse("published_keys", "Find duplicate elements in \"published_keys\": '" + key + "'.");
    }
  }
}

void check_times(const CheckpointHookOptions& options) {
  if (options.save_every.count() < 0) refuse("save_every", "must not be negative");
  if (options.keep_per.count() < 0) refuse("keep_per", "must not be negative");
  if (options.keep_every < 0) refuse("keep_every", "must not be negative");
  if (!(options.stall_budget >= 0 && options.stall_budget < 1)) {
    refuse("stall_budget", "is a share of the training time, from 0 (none) to below 1");
  }
  const bool keeps_more = options.keep_every > 0 || options.keep_per.count() > 0;
  if (keeps_more && options.max_keep_ckpts < 1) {
    refuse(options.keep_every > 0 ? "keep_every" : "keep_per",
           "adds to max_keep_ckpts, which keeps every file already; give a max_keep_ckpts of at "
           "least 1");
  }
}

}  // namespace

CheckpointHookOptions checked_options(CheckpointHookOptions options) {
  if (options.save_begin < 0) {
    refuse("save_begin",
           "should not be less than 0, but got " + std::to_string(options.save_begin));
  }
  if (options.filename_tmpl.empty()) {
    options.filename_tmpl = options.by_epoch ? "epoch_{}.pth" : "iter_{}.pth";
  }
  check_template(options.filename_tmpl);
  if (options.by_epoch && options.filename_tmpl == "iter_{}.pth") {
    refuse("filename_tmpl",
           "'iter_{}.pth' is the name of files saved inside an epoch: epochs need "
           "another, or the one would overwrite the other");
  }
  check_best(options);
  check_published(options.published_keys);
  check_times(options);
  if (!options.out_dir.empty() && options.out_storage) {
    refuse("out_dir", "and out_storage cannot be set at the same time");
  }
  return options;
}

}  // namespace millrace
