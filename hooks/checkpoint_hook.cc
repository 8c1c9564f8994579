#include "millrace/hooks/checkpoint_hook.h"

#include <algorithm>
#include <utility>

#include "millrace/io/checkpoint_store.h"
#include "millrace/io/record_stream.h"
#include "millrace/runtime/async/clock.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpointer.h"
#include "millrace/runtime/engine/data_loader.h"
#include "millrace/runtime/engine/logger.h"
#include "millrace/runtime/engine/message_hub.h"
#include "millrace/runtime/engine/run_context.h"

namespace millrace {
namespace {

RetentionRules rules_of(const CheckpointHookOptions& options) {
  RetentionRules rules;
  rules.last = options.max_keep_ckpts;
  rules.every = options.keep_every;
  rules.per = options.keep_per;
  return rules;
}

// The reason of a save that stands in for a discarded one. It has no stand-in itself.
constexpr std::string_view kRetaken = "retaken";
constexpr std::string_view kBest = "best";

constexpr std::uint32_t kStateVersion = 1;  // of save_state()

std::string iter_file(std::int64_t iter) { return "iter_" + std::to_string(iter) + ".pth"; }

}  // namespace

CheckpointHook::CheckpointHook(CheckpointHookOptions options)
    : options_(checked_options(std::move(options))),
      pacing_(options_),
      kept_(rules_of(options_)),
      best_(options_) {}

void CheckpointHook::attach(RunContext& run) {
  run_ = &run;
  if (best_.wanted() && run.val_loader == nullptr) {
    throw ConfigError("CheckpointHook.save_best",
                      "needs scores of a validation, and this run has none: give it val and "
                      "metrics, or leave save_best out");
  }
  best_.check_names(run.metric_names);
  store_ = options_.out_storage ? &run.checkpointer.open_store(options_.out_storage)
                                : &run.checkpointer.open_store(options_.out_dir);
  if (options_.on_busy == OnBusy::kReplace) run.checkpointer.allow_replace();
}

void CheckpointHook::subscribe(Subscriptions& on) {
  on.every<BeforeTrain>(&CheckpointHook::before_train, this);
  if (options_.by_epoch) on.awaited<AfterTrainEpoch>(&CheckpointHook::after_train_epoch, this);
  if (!options_.by_epoch || options_.save_every.count() > 0) {
    on.awaited<AfterTrainIter>(&CheckpointHook::after_train_iter, this);
  }
  on.awaited<AfterValEpoch>(&CheckpointHook::after_val_epoch, this);
  on.every<AfterTrain>(&CheckpointHook::after_train, this);
  on.awaited<StopRequested>(&CheckpointHook::on_stop, this);
  on.awaited<CheckpointRequested>(&CheckpointHook::on_request, this);
  on.awaited<CheckpointDiscarded>(&CheckpointHook::on_discarded, this);
  on.every<CheckpointReplaced>([this](const CheckpointReplaced& e) { given_up(e.row); });
  on.every<CheckpointCommitted>(&CheckpointHook::committed, this);
  on.every<CheckpointFailed>(&CheckpointHook::failed, this);
}

// ---- when

std::string CheckpointHook::filename(std::int64_t step) const {
  std::string name = options_.filename_tmpl;
  return name.replace(name.find("{}"), 2, std::to_string(step));
}

Task<> CheckpointHook::after_train_epoch(const AfterTrainEpoch& event) {
  const Progress& at = event.at;
  const std::int64_t step = at.epoch + 1;
  // A resumed run of iterations, which has one epoch, may be in its second.
  const bool last = options_.save_last && step >= at.max_epochs;
  if (!pacing_.due_now(step) && !last) co_return;
  run_->log.info("Saving checkpoint at " + std::to_string(step) + " epochs");
  Target target{filename(step), step, step, at.iter};
  const char* reason = last ? "last" : "interval";
  co_await save_regular(std::move(target), reason, !last, false);
}

Task<> CheckpointHook::after_train_iter(const AfterTrainIter& event) {
  const Progress& at = event.at;
  const std::int64_t step = at.iter + 1;
  const bool counted = !options_.by_epoch;
  const bool last = counted && options_.save_last && step == at.max_iters;
  const bool by_interval = counted && pacing_.due_now(step);
  if (!by_interval && !last && !pacing_.time_due(run_->clock.now())) co_return;
  run_->log.info("Saving checkpoint at " + std::to_string(step) + " iterations");
  Target target{counted ? filename(step) : iter_file(step), {}, at.epoch, step};
  if (counted) target.step = step;
  const char* reason = last ? "last" : by_interval ? "interval" : "time";
  co_await save_regular(std::move(target), reason, !last, false);
}

// The name of the state between two iterations. After an epoch the loader stands at the beginning
// of the next one.
CheckpointHook::Target CheckpointHook::target_here() const {
  const Progress& at = run_->at;
  Target target{{}, {}, at.epoch, at.iter};
  if (!options_.by_epoch) {
    target.step = at.iter;
  } else if (at.by_epoch && run_->train_loader->position().batch == 0) {
    target.step = at.epoch;
  }
  target.file = target.step ? filename(*target.step) : iter_file(at.iter);
  return target;
}

Task<> CheckpointHook::save_here(std::string reason, bool pinned) {
  if (run_->at.iter == 0) co_return;
  Target target = target_here();
  const bool saved = run_->checkpointer.last_saved_iter() == run_->at.iter;
  if (saved && holds_state(run_->at.iter)) {
    run_->checkpointer.protect(*store_, newest_.file);
    if (pinned) pin(newest_.file);
  }
  if (saved) co_return;
  run_->log.info("Saving checkpoint at " + std::to_string(target.iter) + " iterations (" + reason +
                 ")");
  co_await save_regular(std::move(target), std::move(reason), false, pinned);
}

Task<> CheckpointHook::on_stop(const StopRequested&) { co_await save_here("stop", false); }

Task<> CheckpointHook::on_request(const CheckpointRequested& event) {
  co_await save_here("on_demand", event.pinned);
}

// Retaken at once and eagerly: the train thread is here, so nobody can write meanwhile. The state
// is a later one, so it goes by its own name, and it is nobody's best.
Task<> CheckpointHook::on_discarded(const CheckpointDiscarded& event) {
  const CheckpointRow& row = event.row;
  if (!is_mine(row)) co_return;
  const bool pinned = kept_.pinned_on_its_way(row.save_id) || best_.pinned(row.name);
  const bool retake = (row.reason != kBest || pinned) && row.reason != kRetaken && !run_->failed;
  const bool due = retake && row.reason != kBest && unpublished_.erase(row.name) > 0;
  given_up(row);
  if (retake) co_await save_here(std::string(kRetaken), pinned);
  if (due) publish_last();
}

// ---- saving

SaveRequest CheckpointHook::request_for(const Target& target, std::string reason) const {
  SaveRequest request;
  request.filename = target.file;
  request.mode = reason == kRetaken ? StageMode::kEager : options_.mode;
  request.on_busy = options_.on_busy;
  request.reason = std::move(reason);
  request.save_optimizer = options_.save_optimizer;
  request.save_param_scheduler = options_.save_param_scheduler;
  request.epoch = target.epoch;
  request.iter = target.iter;
  request.store = store_;
  return request;
}

Task<> CheckpointHook::save_regular(Target target, std::string reason, bool may_drop, bool pinned) {
  SaveRequest request = request_for(target, std::move(reason));
  request.may_drop = may_drop;
  request.retakes = request.reason != kRetaken;
  request.pinned = pinned;
  // What the file says about itself. As in the reference the hub is written before the capture, but
  // not before it is sure to come.
  request.before_capture = [this, &target, pinned, id = request.save_id] {
    pacing_.captured(id, target.step, run_->clock.now());
    newest_ = {target.file, id, target.iter};
    last_ = {target.file, id};
    kept_.plan({target.file, id, target.step, run_->clock.unix_ns(), pinned});
    write_hub(target);
  };
  co_await run_->checkpointer.save(std::move(request));  // a throw ends the run, and this runner
}

// A failure of which no event has told yet is none of what the file says.
void CheckpointHook::write_hub(const Target& target) {
  best_.forget([this](const std::string& save_id) { return run_->checkpointer.lost(save_id); });
  best_.write_hub(run_->hub, store_->location());
  write_last(store_->location() + "/" + target.file);
  if (options_.max_keep_ckpts < 1 || !target.step) return;
  pickle::Value ids = pickle::Value::list();
  for (const std::int64_t step : kept_.steps()) ids.append(step);
  run_->hub.info("keep_ckpt_ids") = ids;
}

void CheckpointHook::write_last(const std::string& path) {
  if (path.empty()) {
    run_->hub.pop_info("last_ckpt");
  } else {
    run_->hub.info("last_ckpt") = path;
  }
}

// ---- best

// Whether there is a file of the state after `iter`, or one on its way.
bool CheckpointHook::holds_state(std::int64_t iter) const {
  return newest_.iter == iter && !newest_.save_id.empty() &&
         !run_->checkpointer.lost(newest_.save_id);
}

Task<> CheckpointHook::after_val_epoch(const AfterValEpoch& event) {
  if (event.metrics.empty()) {
    run_->log.warn(
        "Since `metrics` is an empty dict, the behavior to save the best checkpoint "
        "will be skipped in this evaluation.");
    co_return;
  }
  if (!best_.wanted()) co_return;
  std::vector<std::string> missing;
  const auto improved = best_.improved(event.metrics, missing);
  for (const std::string& key : missing) {
    run_->log.warn("The metric '" + key +
                   "' is missing in this evaluation: no best checkpoint is saved for it");
  }
  if (holds_state(event.at.iter)) {
    run_->checkpointer.score(*store_, newest_.save_id, best_.scores(event.metrics));
  }
  for (const BestCheckpoints::Improved& best : improved) {
    Target target = target_here();
    if (options_.save_best_full && holds_state(event.at.iter)) {
      link_best(best, target);
    } else {
      co_await save_best(best, std::move(target), best_.scores(event.metrics));
    }
  }
}

BestCheckpoints::Planned CheckpointHook::planned(const BestCheckpoints::Improved& best,
                                                 const Target& target, std::string file,
                                                 std::string save_id) const {
  const bool epochs = options_.by_epoch && target.step;
  return {best.metric,
          {std::move(file), std::move(save_id), best.score},
          epochs ? target.epoch : target.iter,
          epochs ? "epoch" : "iter"};
}

// The state has a file already, or one on its way: no byte of data is written for the best.
void CheckpointHook::link_best(const BestCheckpoints::Improved& best, const Target& target) {
  const std::string file = best_stem(best.key) + "_" + target.file;
  best_.plan(planned(best, target, file, newest_.save_id));
  best_.write_hub(run_->hub, store_->location());
  CheckpointRow row;
  row.name = file;
  row.reason = kBest;
  row.save_id = newest_.save_id;
  row.epoch = target.epoch;
  row.iter = target.iter;
  run_->checkpointer.link(*store_, newest_.file, std::move(row), {{best.key, best.score}});
}

// All scores go with it: should the run end here, the other metrics' best is made from this file.
Task<> CheckpointHook::save_best(BestCheckpoints::Improved best, Target target,
                                 std::map<std::string, double> scores) {
  const std::string file = best_stem(best.key) + "_" + target.file;
  SaveRequest request = request_for(target, std::string(kBest));
  request.filename = file;
  request.pointer = false;
  request.scores = std::move(scores);
  if (!options_.save_best_full) request.save_optimizer = request.save_param_scheduler = false;
  const std::string id = request.save_id;
  request.before_capture = [this, &best, &target, &file, &id] {
    best_.forget([this](const std::string& save) { return run_->checkpointer.lost(save); });
    best_.plan(planned(best, target, file, id));
    best_.write_hub(run_->hub, store_->location());
    if (options_.save_best_full) newest_ = {file, id, target.iter};
  };
  co_await run_->checkpointer.save(std::move(request));
}

// ---- outcomes

bool CheckpointHook::is_mine(const CheckpointRow& row) const {
  return row.directory == store_->location();
}

void CheckpointHook::committed(const CheckpointCommitted& event) {
  const CheckpointRow& row = event.row;
  if (!is_mine(row)) return;
  if (row.reason == kBest) {
    if (!best_.planned(row.name)) return;
    BestCheckpoints::Outcome outcome = best_.committed(row.name);
    // It had no row when the pin was set, if it is a link.
    if (best_.pinned(row.name)) run_->checkpointer.pin(*store_, row.name, true);
    for (const std::string& victim : outcome.victims) {
      run_->log.info("The previous best checkpoint " + store_->location() + "/" + victim +
                     " is removed");
    }
    run_->log.info(outcome.text);
    run_->checkpointer.retire(*store_, std::move(outcome.victims));
    if (unpublished_.erase(row.name) > 0) publish(row.name);
    return;
  }
  durable_last_ = {row.name, row.save_id};
  durable_path_ = row.directory + "/" + row.name;
  run_->checkpointer.retire(*store_, kept_.committed(row.save_id));
  if (const auto text = pacing_.committed(row)) run_->log.warn(*text);
  if (unpublished_.erase(row.name) > 0) publish(row.name);
}

void CheckpointHook::given_up(const CheckpointRow& row) {
  if (!is_mine(row)) return;
  if (newest_.save_id == row.save_id && newest_.file == row.name) newest_ = {};
  if (row.reason != kBest) {
    kept_.given_up(row);
    pacing_.given_up(row.save_id);
    return last_given_up(row);
  }
  best_.failed(row.name, row.in_place);
  if (unpublished_.erase(row.name) > 0) publish_best();
  best_.write_hub(run_->hub, store_->location());
}

// The one before it is the last file now.
void CheckpointHook::last_given_up(const CheckpointRow& row) {
  if (row.in_place) {
    durable_last_ = {row.name, row.save_id};
    durable_path_ = row.directory + "/" + row.name;
  }
  if (last_.save_id == row.save_id) {
    last_ = durable_last_;
    write_last(durable_path_);
  }
  if (unpublished_.erase(row.name) > 0 && !durable_last_.file.empty()) publish(durable_last_.file);
}

void CheckpointHook::failed(const CheckpointFailed& event) {
  if (!is_mine(event.row)) return;
  given_up(event.row);
  if (options_.on_error == OnSaveError::kStop) {
    throw CheckpointError(event.row.directory + "/" + event.row.name,
                          "was not saved, and on_error is stop: " + event.row.error);
  }
}

void CheckpointHook::pin(std::string_view name, bool pinned) {
  std::vector<std::string> names;
  for (const CatalogRow& row : store_->rows()) names.push_back(row.name);
  const std::string file(name);
  if (pinned && run_->checkpointer.retiring(*store_, file)) {
    throw ConfigError("CheckpointHook.pin", file +
                                                " is being removed already: pin a file before "
                                                "a newer or a better one takes its place");
  }
  const bool known = std::find(names.begin(), names.end(), name) != names.end();
  if (!known && !kept_.on_its_way(name) && !best_.planned(name)) {
    throw ConfigError("CheckpointHook.pin",
                      store_->location() + " has no checkpoint '" + std::string(name) + "'",
                      nearest_name(name, names));
  }
  if (pinned) run_->checkpointer.protect(*store_, file);
  run_->checkpointer.pin(*store_, file, pinned);
  run_->checkpointer.retire(*store_, kept_.pin(name, pinned));
  run_->checkpointer.retire(*store_, best_.pin(name, pinned));
}

// ---- the ends of a run

void CheckpointHook::before_train(const BeforeTrain& event) {
  run_->log.info("Checkpoints will be saved to " + store_->location() + ".");
  if (options_.by_epoch && !event.at.by_epoch) {
    run_->log.warn(
        "CheckpointHook counts epochs, and an iteration-based run has one: it saves at the "
        "end only. Set by_epoch = false to save by iterations");
  }
  if (options_.interval < 1 && options_.max_keep_ckpts > 0 && options_.save_every.count() == 0) {
    run_->log.warn("CheckpointHook: max_keep_ckpts is " + std::to_string(options_.max_keep_ckpts) +
                   ", and interval is " + std::to_string(options_.interval) +
                   ": nothing is saved regularly. default_hooks() without options has interval = "
                   "1; with options of your own, say it among them");
  }
  pacing_.start(options_.by_epoch ? event.at.epoch : event.at.iter, run_->clock.now());
  restore_lists();
  const pickle::Value* last = run_->hub.find_info("last_ckpt");
  if (const std::string* path = last != nullptr ? last->as_string() : nullptr)
    durable_path_ = *path;
}

void CheckpointHook::after_train(const AfterTrain&) {
  if (options_.published_keys.empty()) return;
  published_.clear();
  if (options_.save_last) publish_last();
  publish_best();
}

void CheckpointHook::publish_last() {
  if (last_.file.empty()) return;
  if (last_.save_id == durable_last_.save_id) {
    publish(last_.file);
  } else {
    unpublished_.insert(last_.file);
  }
}

void CheckpointHook::publish_best() {
  for (const std::string& file : best_.newest_files()) {
    if (best_.planned(file)) {
      unpublished_.insert(file);
    } else {
      publish(file);
    }
  }
}

void CheckpointHook::publish(const std::string& file) {
  if (!published_.insert(file).second) return;
  run_->checkpointer.publish(*store_, file, options_.published_keys);
}

// After a resume: what the catalog of the directory knows about the files that the checkpoint
// listed.
void CheckpointHook::restore_lists() {
  const std::vector<CatalogRow> rows = store_->rows();
  if (!kept_.known()) {
    adopt_lists(rows);
  } else if (kept_.idle()) {
    run_->checkpointer.retire(*store_, best_.reconcile(rows, run_->checkpointer.newest()));
  }
  kept_.reconcile(rows);
  best_.write_hub(run_->hub, store_->location());  // the file's entries may be older
  make_owed_links();
}

// From another program's checkpoint, or nothing in a fresh run.
void CheckpointHook::adopt_lists(const std::vector<CatalogRow>& rows) {
  const pickle::Value* ids = run_->hub.find_info("keep_ckpt_ids");
  const auto* items = ids != nullptr ? ids->as_sequence() : nullptr;
  std::vector<RetainedFile> listed;
  for (const pickle::Value& item : items != nullptr ? *items : std::vector<pickle::Value>()) {
    if (const auto step = item.as_int()) listed.push_back({filename(*step), "", *step, 0, false});
  }
  kept_.adopt(std::move(listed));
  best_.adopt(run_->hub, store_->location(), rows);
}

// A run that ended between a score and its link left the score in the catalog, or the link among
// those on their way.
void CheckpointHook::make_owed_links() {
  if (!options_.save_best_full) return;
  const std::vector<CatalogRow> rows = store_->rows();
  for (const BestCheckpoints::Unmade& unmade : best_.take_unmade(rows)) {
    link_owed(unmade.source, {unmade.best});
  }
  const CheckpointIdentity& resumed = run_->checkpointer.newest();
  if (resumed.save_id.empty()) return;
  const CatalogRow* source = nullptr;  // a best file where the state has no other
  for (const CatalogRow& row : rows) {
    if (row.identity.save_id != resumed.save_id) continue;
    if (source == nullptr || !best_.series_name(row.name)) source = &row;
  }
  if (source != nullptr) link_owed(*source, best_.owed(*source));
}

void CheckpointHook::link_owed(const CatalogRow& source,
                               const std::vector<BestCheckpoints::Improved>& owed) {
  const CheckpointIdentity& id = source.identity;
  newest_ = {source.name, id.save_id, id.iter};
  const std::string file = best_.series_name(source.name).value_or(source.name);
  Target target{file, {}, id.epoch, id.iter};
  if (options_.by_epoch && file == filename(id.epoch)) target.step = id.epoch;
  for (const BestCheckpoints::Improved& best : owed) link_best(best, target);
}

std::string CheckpointHook::save_state() const {
  RecordWriter out;
  out(kStateVersion);
  kept_.save(out);
  best_.save(out);
  return std::move(out).take();
}

void CheckpointHook::load_state(std::string_view state) {
  RecordReader in(state);
  std::uint32_t version = 0;
  in(version);
  if (version != kStateVersion) {
    throw RecordError("it is of version " + std::to_string(version) + ", and this program knows " +
                      std::to_string(kStateVersion));
  }
  kept_.load(in);
  best_.load(in);
  if (!in.finished()) throw RecordError("bytes are left over");
}

}  // namespace millrace
