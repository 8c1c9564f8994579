#include "millrace/hooks/checkpoint_hook.h"

#include <algorithm>
#include <utility>

#include "millrace/io/checkpoint_store.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpointer.h"
#include "millrace/runtime/engine/data_loader.h"
#include "millrace/runtime/engine/logger.h"
#include "millrace/runtime/engine/message_hub.h"
#include "millrace/runtime/engine/record_stream.h"
#include "millrace/runtime/engine/run_context.h"

namespace millrace {
namespace {

constexpr std::string_view kPlaceholder = "{}";

void check_template(const std::string& text) {
  const auto first = text.find(kPlaceholder);
  if (first == std::string::npos || text.find(kPlaceholder, first + 1) != std::string::npos) {
    throw ConfigError("CheckpointHook.filename_tmpl",
                      "'" + text + "' needs exactly one {} for the number");
  }
  if (!text.ends_with(".pth") || text.find('/') != std::string::npos) {
    throw ConfigError(
        "CheckpointHook.filename_tmpl",
        "'" + text + "' must be a file name ending in .pth, or resume cannot find it");
  }
}

}  // namespace

CheckpointHook::CheckpointHook(CheckpointHookOptions options)
    : options_(std::move(options)), kept_(options_.max_keep_ckpts) {
  if (options_.save_begin < 0) {
    throw ConfigError("CheckpointHook.save_begin",
                      "should not be less than 0, but got " + std::to_string(options_.save_begin));
  }
  if (options_.filename_tmpl.empty()) {
    options_.filename_tmpl = options_.by_epoch ? "epoch_{}.pth" : "iter_{}.pth";
  }
  check_template(options_.filename_tmpl);
}

void CheckpointHook::attach(RunContext& run) {
  run_ = &run;
  store_ = &run.checkpointer.open_store(options_.out_dir);
}

void CheckpointHook::subscribe(Subscriptions& on) {
  on.every<BeforeTrain>(&CheckpointHook::before_train, this);
  if (options_.by_epoch) {
    on.awaited<AfterTrainEpoch>(&CheckpointHook::after_train_epoch, this);
  } else {
    on.awaited<AfterTrainIter>(&CheckpointHook::after_train_iter, this);
  }
  on.awaited<StopRequested>(&CheckpointHook::on_stop, this);
  on.every<CheckpointCommitted>(&CheckpointHook::committed, this);
  on.every<CheckpointFailed>(&CheckpointHook::failed, this);
}

bool CheckpointHook::due(std::int64_t step) const {
  const std::int64_t since = step - options_.save_begin;
  return options_.interval > 0 && since >= 0 && since % options_.interval == 0;
}

std::string CheckpointHook::filename(std::int64_t step) const {
  std::string name = options_.filename_tmpl;
  return name.replace(name.find(kPlaceholder), kPlaceholder.size(), std::to_string(step));
}

void CheckpointHook::before_train(const BeforeTrain& event) {
  run_->log.info("Checkpoints will be saved to " + store_->location() + ".");
  if (options_.by_epoch && !event.at.by_epoch) {
    run_->log.warn(
        "CheckpointHook counts epochs, and an iteration-based run has one: it saves at the "
        "end only. Set by_epoch = false to save by iterations");
  }
  if (std::exchange(list_known_, true)) return;
  // Resumed from another program's file: its message hub lists what it kept.
  const pickle::Value* ids = run_->hub.find_info("keep_ckpt_ids");
  const auto* items = ids != nullptr ? ids->as_sequence() : nullptr;
  if (items == nullptr) return;
  std::vector<std::int64_t> steps;
  for (const pickle::Value& item : *items) {
    if (const auto step = item.as_int()) steps.push_back(*step);
  }
  kept_.restore(steps);
}

Task<> CheckpointHook::after_train_epoch(const AfterTrainEpoch& event) {
  const Progress& at = event.at;
  const std::int64_t step = at.epoch + 1;
  const bool last = options_.save_last && step == at.max_epochs;
  if (!due(step) && !last) co_return;
  run_->log.info("Saving checkpoint at " + std::to_string(step) + " epochs");
  co_await save(step, step, at.iter, last ? "last" : "interval");
}

Task<> CheckpointHook::after_train_iter(const AfterTrainIter& event) {
  const Progress& at = event.at;
  const std::int64_t step = at.iter + 1;
  const bool last = options_.save_last && step == at.max_iters;
  if (!due(step) && !last) co_return;
  run_->log.info("Saving checkpoint at " + std::to_string(step) + " iterations");
  co_await save(step, at.epoch, step, last ? "last" : "interval");
}

Task<> CheckpointHook::on_stop(const StopRequested& event) {
  const Progress& at = event.at;
  if (at.iter == 0 || run_->checkpointer.last_saved_iter() == at.iter) co_return;
  run_->log.info("Saving checkpoint at " + std::to_string(at.iter) +
                 " iterations, before stopping");
  const bool epoch_finished = at.by_epoch && run_->train_loader->position().batch == 0;
  if (!options_.by_epoch) {
    co_await save(at.iter, at.epoch, at.iter, "stop");
  } else if (epoch_finished) {
    co_await save(at.epoch, at.epoch, at.iter, "stop");
  } else {
    const Pending what{at.iter, false};
    co_await save_as("iter_" + std::to_string(at.iter) + ".pth", what, at.epoch, at.iter, "stop");
  }
}

Task<> CheckpointHook::save(std::int64_t step, std::int64_t epoch, std::int64_t iter,
                            std::string reason) {
  const Pending what{step, true};
  co_await save_as(filename(step), what, epoch, iter, std::move(reason));
}

Task<> CheckpointHook::save_as(std::string file, Pending what, std::int64_t epoch,
                               std::int64_t iter, std::string reason) {
  // As in the reference, the hub is written first, so that a file lists itself.
  saving_step_ = what.regular ? what.step : -1;
  run_->hub.info("last_ckpt") = store_->location() + "/" + file;
  if (options_.max_keep_ckpts > 0 && what.regular) {
    pickle::Value ids = pickle::Value::list();
    for (const std::int64_t id : with_pending().ids_after(what.step)) ids.append(id);
    run_->hub.info("keep_ckpt_ids") = ids;
  }
  SaveRequest request;
  request.filename = file;
  request.reason = std::move(reason);
  request.mode = options_.mode;
  request.save_optimizer = options_.save_optimizer;
  request.save_param_scheduler = options_.save_param_scheduler;
  request.epoch = epoch;
  request.iter = iter;
  request.store = store_;
  pending_.emplace(std::move(file), what);
  co_await run_->checkpointer.save(std::move(request));  // a throw ends the run, and this runner
}

LastN CheckpointHook::with_pending() const {
  std::vector<std::int64_t> steps;
  for (const auto& [file, what] : pending_) {
    if (what.regular) steps.push_back(what.step);
  }
  std::sort(steps.begin(), steps.end());
  LastN ahead = kept_;
  for (const std::int64_t step : steps) ahead.restore(ahead.saved_after(step));
  return ahead;
}

void CheckpointHook::committed(const CheckpointCommitted& event) {
  if (event.row.directory != store_->location()) return;
  const auto found = pending_.find(event.row.name);
  if (found == pending_.end()) return;
  const auto [step, regular] = found->second;
  pending_.erase(found);
  if (!regular) {
    stop_files_.push_back(event.row.name);
    return;
  }
  std::vector<std::string> victims;
  for (const std::int64_t id : kept_.committed(step)) victims.push_back(filename(id));
  if (options_.max_keep_ckpts > 0) {
    victims.insert(victims.end(), stop_files_.begin(), stop_files_.end());
    stop_files_.clear();
  }
  run_->checkpointer.retire(*store_, std::move(victims));
}

void CheckpointHook::failed(const CheckpointFailed& event) {
  if (event.row.directory == store_->location()) pending_.erase(event.row.name);
}

std::string CheckpointHook::save_state() const {
  RecordWriter out;
  const LastN ahead = with_pending();
  // With what the commit of this save gives up: should a crash come in between, the next run does
  // it.
  std::vector<std::string> stop_files = stop_files_;
  for (const auto& [file, what] : pending_) {
    if (!what.regular) stop_files.push_back(file);
  }
  out(saving_step_ >= 0 ? ahead.saved_after(saving_step_) : ahead.ids(), stop_files);
  return std::move(out).take();
}

void CheckpointHook::load_state(std::string_view state) {
  std::vector<std::int64_t> ids;
  RecordReader in(state);
  in(ids, stop_files_);
  kept_.restore(ids);
  list_known_ = true;
}

}  // namespace millrace
