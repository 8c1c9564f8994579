// All options of CheckpointHook, in one place. Names and defaults are the reference's where it has
// them; marked (*) where it has none.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "millrace/io/storage.h"
#include "millrace/runtime/engine/save_job.h"
#include "millrace/runtime/staging/staging.h"

namespace millrace {

// What a save that could not be made does to the run. (*)
enum class OnSaveError : std::uint8_t {
  kContinue,  // event and log at once; training goes on to its end, then train() throws
  kStop,      // the run ends with the error at the next stage
};

struct CheckpointHookOptions {
  // ---- when a regular file is saved
  std::int64_t interval = -1;   // epochs or iterations between saves; below 1: none by interval
  bool by_epoch = true;         // what interval and save_begin count, and file names say
  std::int64_t save_begin = 0;  // first epoch or iteration that is saved; 0: the interval's first
  bool save_last = true;        // also after the last epoch or iteration
  std::chrono::nanoseconds save_every{0};  // (*) and this long after the last one; 0: not by time

  // ---- what is in it
  bool save_optimizer = true;  // without it, files cannot be resumed
  bool save_param_scheduler = true;

  // ---- the best files: metrics of the validation; "auto" is the first one it gives
  std::vector<std::string> save_best = {};
  std::vector<std::string> rule = {};  // one for all, or one each: "greater", "less", or one
                                       // of register_best_rule(); "" infers it from the name
  std::vector<std::string> greater_keys = {};  // names for which greater is better; default: acc,
  std::vector<std::string> less_keys = {};     // mAP ... and loss (best_metric.h)
  std::int64_t keep_best = 1;                  // (*) files kept per metric: the best ones
  bool save_best_full = true;  // (*) a best file can be resumed, and costs no bytes when its step
                               // is saved anyway; false: the weights only, in a file of their own

  // ---- which regular files are kept; a file goes only after a newer one is durable
  std::int64_t max_keep_ckpts = -1;      // the newest ones; below 1: all
  std::int64_t keep_every = 0;           // (*) and every such epoch or iteration, for ever
  std::chrono::nanoseconds keep_per{0};  // (*) and the first one of each span of this length

  // ---- where
  std::filesystem::path out_dir =
      {};  // default: work_dir; else out_dir/<last component of work_dir>
  std::shared_ptr<Storage> out_storage = {};  // (*) instead of a directory
  std::string filename_tmpl = {};             // default epoch_{}.pth or iter_{}.pth

  // ---- publishing, after the training: the last file and the best ones, reduced to these keys
  std::vector<std::string> published_keys = {};

  // ---- how, beside training (*)
  StageMode mode = StageMode::kAuto;
  OnBusy on_busy = OnBusy::kWait;  // interval and time saves only; all others are always made
  OnSaveError on_error = OnSaveError::kContinue;
  // Largest share of the training time that saves by interval may take from the train thread (0.01:
  // one percent): above it the interval is widened, which is logged. 0: no budget.
  double stall_budget = 0;
};

// Throws ConfigError, naming the option, for what cannot work. Fills the default template.
CheckpointHookOptions checked_options(CheckpointHookOptions options);

}  // namespace millrace
