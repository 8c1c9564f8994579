// Checkpoint semantics: options that cannot work (2.2), each refused at construction by its key:
// the reference's checks, in its words where it has some, and those it makes too late or not at
// all. What its type checks refuse (a tuple, a number) does not compile here, nor does an unknown
// option (2.2.10). Index: checkpoint_semantics_test.cc.
#include "millrace/hooks/checkpoint_options.h"

#include <gmock/gmock.h>

#include <functional>
#include <limits>

#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/io/memory_storage.h"
#include "millrace/runtime/async/error.h"
#include "tests/hooks/checkpoint_scenario.h"

namespace millrace {
namespace {

using Options = CheckpointHookOptions;

struct Row {
  test::RowName name;
  std::function<Options()> options;
  const char* key = "";      // of the error; empty: accepted
  const char* text = "";     // part of it
  const char* nearest = "";  // name that it suggests
};
void PrintTo(const Row& row, std::ostream* out) { PrintTo(row.name, out); }

std::function<Options()> with_template(const char* text) {
  return [text] { return Options{.filename_tmpl = text}; };
}

std::function<Options()> with_best(std::vector<std::string> metrics,
                                   std::vector<std::string> rules = {}) {
  return [metrics, rules] { return Options{.save_best = metrics, .rule = rules}; };
}

const Row kTable[] = {
    {{"2.2", "defaults"}, [] { return Options{}; }},
    {{"2.4", "interval 0"}, [] { return Options{.interval = 0}; }},
    {{"2.5.1", "keep 0"}, [] { return Options{.max_keep_ckpts = 0}; }},

    {{"2.2.1", "two places"},
     [] { return Options{.out_dir = "out", .out_storage = std::make_shared<MemoryStorage>()}; },
     "CheckpointHook.out_dir",
     "and out_storage cannot be set at the same time"},

    {{"2.2.2", "a template without a number: ours"},
     with_template("last.pth"),
     "CheckpointHook.filename_tmpl",
     "'last.pth' needs exactly one {} for the number"},
    {{"2.2.2", "a template with two: ours"},
     with_template("{}_{}.pth"),
     "CheckpointHook.filename_tmpl",
     "'{}_{}.pth' needs exactly one {} for the number"},
    {{"2.2.2", "a template with Python's formats: ours"},
     with_template("epoch_{:03d}.pth"),
     "CheckpointHook.filename_tmpl",
     "'epoch_{:03d}.pth' needs exactly one {} for the number"},
    {{"2.2.2", "a template that resume cannot find: ours"},
     with_template("epoch_{}.pt"),
     "CheckpointHook.filename_tmpl",
     "'epoch_{}.pt' must be a file name ending in .pth"},
    {{"2.2.2", "a template without an ending: ours"},
     with_template("epoch_{}"),
     "CheckpointHook.filename_tmpl",
     "'epoch_{}' must be a file name ending in .pth"},
    {{"2.2.2", "a template with a folder: ours"},
     with_template("a/{}.pth"),
     "CheckpointHook.filename_tmpl",
     "'a/{}.pth' must be a file name ending in .pth"},
    {{"2.2.2", "a hidden template: ours"},
     with_template(".{}.pth"),
     "CheckpointHook.filename_tmpl",
     "'.{}.pth' must be a file name ending in .pth"},
    {{"2.2.2", "a template of a best file: ours"},
     with_template("best_{}.pth"),
     "CheckpointHook.filename_tmpl",
     "'best_{}.pth' would be taken for a best file"},
    {{"2.2.2", "a template of a published file: ours"},
     with_template("x-{}.pth"),
     "CheckpointHook.filename_tmpl",
     "names like x-11111111.pth, which would be taken for a published file"},
    {{"2.2.2", "epochs named as iterations: ours"},
     with_template("iter_{}.pth"),
     "CheckpointHook.filename_tmpl",
     "'iter_{}.pth' is the name of files saved inside an epoch"},
    {{"2.2.2", "iterations named as iterations"},
     [] { return Options{.by_epoch = false, .filename_tmpl = "iter_{}.pth"}; }},
    {{"2.2.2", "a template that only has best in it"}, with_template("our_best_{}.pth")},

    {{"2.2.3", "auto alone"}, with_best({"auto"})},
    {{"2.2.3", "several metrics"}, with_best({"acc", "loss"})},
    {{"2.2.3", "auto first among others"},
     with_best({"auto", "acc"}),
     "CheckpointHook.save_best",
     "Only support one \"auto\" in \"save_best\" list."},
    {{"2.2.3", "auto last among others"},
     with_best({"acc", "auto"}),
     "CheckpointHook.save_best",
     "Only support one \"auto\" in \"save_best\" list."},
    {{"2.2.3", "auto twice"},
     with_best({"auto", "auto"}),
     "CheckpointHook.save_best",
     "Only support one \"auto\" in \"save_best\" list."},
    {{"2.2.3", "a metric twice"},
     with_best({"acc", "loss", "acc"}),
     "CheckpointHook.save_best",
     "Find duplicate element in \"save_best\": 'acc'."},
    {{"2.2.3", "an empty metric: ours"},
     with_best({""}),
     "CheckpointHook.save_best",
     "a metric's name is empty"},
    {{"2.9.13", "metrics of one file name: ours"},
     with_best({"acc/a", "acc_a"}),
     "CheckpointHook.save_best",
     "'acc_a' and another metric would both be saved as best_acc_a_...pth"},

    {{"2.2.4", "one rule for all"}, with_best({"a", "b", "c"}, {"less"})},
    {{"2.2.4", "a rule each"}, with_best({"a", "b"}, {"less", "greater"})},
    {{"2.2.4", "rules of another number"},
     with_best({"acc", "loss", "auc"}, {"greater", "less"}),
     "CheckpointHook.rule",
     "Number of \"rule\" must be 1 or the same as number of \"save_best\", but got 2."},
    {{"2.2.4", "more rules than metrics"},
     with_best({"acc"}, {"greater", "less"}),
     "CheckpointHook.rule",
     "Number of \"rule\" must be 1 or the same as number of \"save_best\", but got 2."},
    {{"2.2.4", "rules for nothing"},
     with_best({}, {"greater", "less"}),
     "CheckpointHook.rule",
     "save_best names no metric"},
    {{"2.2.4", "one rule for nothing: ours"},
     with_best({}, {"greater"}),
     "CheckpointHook.rule",
     "save_best names no metric"},

    {{"2.2.6", "an unknown rule"},
     with_best({"acc"}, {"graeter"}),
     "CheckpointHook.rule",
     "rule must be greater, less or None, but got graeter",
     "greater"},
    {{"2.2.6", "one that is like no other"},
     with_best({"acc"}, {"foo"}),
     "CheckpointHook.rule",
     "rule must be greater, less or None, but got foo"},
    {{"2.2.6", "a rule is not looked up in other letters"},
     with_best({"acc"}, {"Less"}),
     "CheckpointHook.rule",
     "rule must be greater, less or None, but got Less",
     "less"},
    {{"2.2.6", "the second of two"},
     with_best({"acc", "auc"}, {"greater", "lest"}),
     "CheckpointHook.rule",
     "but got lest",
     "less"},
    {{"2.2.6", "an unknown rule for auto: ours"},
     with_best({"auto"}, {"lss"}),
     "CheckpointHook.rule",
     "but got lss",
     "less"},

    {{"2.2.7", "a rule that cannot be inferred"},
     with_best({"weird"}),
     "CheckpointHook.save_best",
     "Cannot infer the rule for key weird, thus a specific rule must be specified"},
    {{"2.2.7", "of the second metric"},
     with_best({"acc", "psnr"}),
     "CheckpointHook.save_best",
     "Cannot infer the rule for key psnr, thus a specific rule must be specified"},
    {{"2.2.7", "a rule left to inference among given ones"},
     with_best({"psnr", "weird"}, {"greater", ""}),
     "CheckpointHook.save_best",
     "Cannot infer the rule for key weird"},
    {{"2.2.5", "keys that replace the defaults"},
     [] { return Options{.save_best = {"acc"}, .greater_keys = {"psnr"}}; },
     "CheckpointHook.save_best",
     "Cannot infer the rule for key acc"},
    {{"2.2.5", "keys of the user"},
     [] {
       return Options{.save_best = {"psnr", "fid"}, .greater_keys = {"PSNR"}, .less_keys = {"fid"}};
     }},

    {{"2.2.8", "a published key twice"},
     [] {
       return Options{.published_keys = {"meta", "state_dict", "meta"}};
     },
     "CheckpointHook.published_keys",
     "Find duplicate elements in \"published_keys\": 'meta'."},
    {{"2.2.9", "a negative begin"},
     [] { return Options{.save_begin = -3}; },
     "CheckpointHook.save_begin",
     "should not be less than 0, but got -3"},

    {{"4.2", "no best file at all: ours"},
     [] { return Options{.keep_best = 0}; },
     "CheckpointHook.keep_best",
     "must be at least 1"},
    {{"4.2", "every N-th on top of keeping all: ours"},
     [] { return Options{.keep_every = 5}; },
     "CheckpointHook.keep_every",
     "adds to max_keep_ckpts"},
    {{"4.2", "one per span on top of keeping all: ours"},
     [] { return Options{.keep_per = std::chrono::hours(1)}; },
     "CheckpointHook.keep_per",
     "adds to max_keep_ckpts"},
    {{"4.2", "a negative N: ours"},
     [] { return Options{.max_keep_ckpts = 1, .keep_every = -1}; },
     "CheckpointHook.keep_every",
     "must not be negative"},
    {{"4.2", "a span that runs backwards: ours"},
     [] { return Options{.max_keep_ckpts = 1, .keep_per = -std::chrono::hours(1)}; },
     "CheckpointHook.keep_per",
     "must not be negative"},
    {{"4.2", "time that runs backwards: ours"},
     [] { return Options{.save_every = -std::chrono::seconds(1)}; },
     "CheckpointHook.save_every",
     "must not be negative"},
    {{"4.2", "all of the time: ours"},
     [] { return Options{.stall_budget = 1}; },
     "CheckpointHook.stall_budget",
     "is a share of the training time"},
    {{"4.2", "a budget that is no number: ours"},
     [] { return Options{.stall_budget = std::numeric_limits<double>::quiet_NaN()}; },
     "CheckpointHook.stall_budget",
     "is a share of the training time"},
};

class OptionsTable : public ::testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(, OptionsTable, ::testing::ValuesIn(kTable), test::NameOfRow());

TEST_P(OptionsTable, AreCheckedAtConstruction) {
  const Row& row = GetParam();
  std::string key, text, nearest;
  try {
    const CheckpointHook hook(row.options());
  } catch (const ConfigError& refused) {
    key = refused.key();
    text = refused.what();
    nearest = refused.nearest();
  }
  EXPECT_EQ(key, row.key) << text;
  EXPECT_EQ(nearest, row.nearest) << text;
  EXPECT_THAT(text, ::testing::HasSubstr(row.text));
  // What a person sees: the key, what is wrong, and the name that was perhaps meant.
  EXPECT_TRUE(text.starts_with(row.key)) << text;
  EXPECT_THAT(text, ::testing::HasSubstr(row.nearest));
}

TEST(OptionsDefaults, 2_2_AreTheReferences) {
  const Options o;
  EXPECT_EQ(o.interval, -1);
  EXPECT_TRUE(o.by_epoch && o.save_optimizer && o.save_param_scheduler && o.save_last);
  EXPECT_EQ(o.max_keep_ckpts, -1);
  EXPECT_EQ(o.save_begin, 0);
  EXPECT_TRUE(o.save_best.empty() && o.rule.empty() && o.published_keys.empty());
  EXPECT_TRUE(o.greater_keys.empty() && o.less_keys.empty()) << "which means best_metric.h's";
  EXPECT_TRUE(o.out_dir.empty()) << "which means the work dir";
  EXPECT_EQ(checked_options(o).filename_tmpl, "epoch_{}.pth");
  EXPECT_EQ(checked_options({.by_epoch = false}).filename_tmpl, "iter_{}.pth");
}

TEST(OnBusy, NamesGoBothWays) {
  for (const OnBusy on_busy : {OnBusy::kWait, OnBusy::kSkip, OnBusy::kReplace}) {
    EXPECT_EQ(parse_on_busy(on_busy_name(on_busy)), on_busy);
  }
  try {
    parse_on_busy("skpi");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.nearest(), "skip");
  }
}

}  // namespace
}  // namespace millrace
