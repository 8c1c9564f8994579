#include "millrace/runtime/engine/checkpointer.h"

#include <algorithm>
#include <asio/this_coro.hpp>
#include <cerrno>
#include <chrono>
#include <exception>
#include <utility>

#include "millrace/events/checkpoint_events.h"
#include "millrace/events/event_bus.h"
#include "millrace/io/record_stream.h"
#include "millrace/runtime/async/clock.h"
#include "millrace/runtime/async/inbox.h"
#include "millrace/runtime/async/io_pool.h"
#include "millrace/runtime/async/quantity.h"
#include "millrace/runtime/async/run_on.h"
#include "millrace/runtime/async/suspend.h"
#include "millrace/runtime/async/task_scope.h"
#include "millrace/runtime/device/device_error.h"
#include "millrace/runtime/device/event_waiter.h"
#include "millrace/runtime/engine/checkpoint_content.h"
#include "millrace/runtime/engine/data_loader.h"
#include "millrace/runtime/engine/hook.h"
#include "millrace/runtime/engine/logger.h"
#include "millrace/runtime/engine/message_hub.h"
#include "millrace/runtime/engine/param_schedule.h"
#include "millrace/runtime/engine/run_context.h"
#include "millrace/runtime/engine/state_sections.h"
#include "millrace/runtime/engine/timestamp.h"
#include "millrace/runtime/engine/version.h"

namespace millrace {
namespace {

SteadyTime now() { return std::chrono::steady_clock::now(); }

pickle::Value meta_of(const RunContext& run, const SaveRequest& request) {
  pickle::Value meta = pickle::Value::dict();
  meta.set("epoch", request.epoch);
  meta.set("iter", request.iter);
  meta.set("cfg", run.config_text);
  meta.set("seed", static_cast<std::int64_t>(run.seed));
  meta.set("experiment_name", run.run_name);
  meta.set("time", timestamp());
  meta.set("millrace_version", kVersion);
  return meta;
}

// A state one can go on from, or the file everybody looks for: later saves are its children.
bool is_line_of_descent(const SaveRequest& request) {
  return request.pointer || request.save_optimizer;
}

}  // namespace

struct Checkpointer::Io {
  Inbox& inbox;
  IoPool& pool;
  EventWaiter* waiter;
  TaskScope writes;           // at most one, and the next one it starts
  Resumption slot_free = {};  // who waits for waiting_ to be taken
};

Checkpointer::Checkpointer(RunContext& run, Staging& staging, const HookList& hooks,
                           std::unique_ptr<Storage> default_storage, std::shared_ptr<FileOps> files)
    : run_(run),
      staging_(staging),
      hooks_(hooks),
      housekeeping_(run, [this](const auto& path, const auto& error) { fail(path, error); }),
      stores_(run.work_dir, std::move(default_storage), std::move(files)) {}

Checkpointer::~Checkpointer() = default;

Task<> Checkpointer::start(asio::any_io_executor train, Inbox& inbox, IoPool& io,
                           EventWaiter* waiter) {
  io_.reset(new Io{inbox, io, waiter, TaskScope(train)});
  housekeeping_.start(train, inbox, io);
  failures_.clear();
  lost_.clear();
  counts_ = {};
  if (!stores_.any_opened()) co_return;  // nobody saves
  RunStores::Prepared prepared;
  const auto prepare = [this, &prepared] { prepared = stores_.prepare(); };
  co_await run_on(io.executor(), prepare);
  generation_ = std::max(generation_, prepared.highest_generation);
  const CheckpointStore::Prepared& found = prepared.found;
  for (const std::string& name : found.swept) {
    run_.log.info("Removed " + name + ", left behind by an interrupted save");
  }
  for (const std::string& note : found.notes) run_.log.warn(note);
}

void Checkpointer::end() {
  housekeeping_.end();
  stores_.unlock();
  io_.reset();
}

void Checkpointer::reserve() {
  if (!stores_.any_opened()) return;
  if (replaces_) staging_.allow_two();
  const CapturedState state = run_.strategy.capture(true);
  staging_.reserve(state.storages, state.bytes_to_come);
}

StageMode Checkpointer::resolve(StageMode mode) const {
  if (mode != StageMode::kAuto) return mode;
  return run_.strategy.uses_every_core() ? StageMode::kEager : StageMode::kLazy;
}

Task<bool> Checkpointer::save(SaveRequest request) {
  if (!io_) throw Error("a checkpoint can be saved only while train() runs: call from a hook");
  auto job = std::make_shared<SaveJob>();
  job->row.times.requested = now();
  const bool room = co_await make_room(request);
  if (!room) co_return false;
  job->request = std::move(request);
  if (job->request.before_capture) job->request.before_capture();
  co_await read_losses();
  co_await capture(job);
  job->snapshot = staging_.begin(job->state.storages, job->request.mode, job->state.watch);
  if (job->snapshot->streams() && !std::exchange(told_streaming_, true)) {
    run_.log.info(
        "The state exceeds checkpoint_memory_budget: it streams to the disk, and the "
        "optimizer waits until it has been written");
  }
  if (is_line_of_descent(job->request)) newest_ = job->record.identity;
  if (writing_) {
    waiting_ = job;
  } else {
    start_writing(job);
  }
  // Now, not at the loop's next yield: the file would be begun a step later, and a gate that waits
  // for its writer would wait for ever.
  co_await yield();
  if (job->request.mode == StageMode::kBlocking) co_await io_->writes.join();
  job->row.times.call_returned = now();
  job->row.stall_call = job->row.times.call_returned - job->row.times.requested;
  co_await run_.bus.publish(CheckpointCaptured{job->row});
  co_return true;
}

// False when the save is not to be taken. A save that may not be dropped waits instead of skipping,
// and does not give its place in the slot to a newer one.
Task<bool> Checkpointer::make_room(const SaveRequest& request) {
  if (!writing_) co_return true;
  if (request.on_busy == OnBusy::kSkip && request.may_drop) {
    co_await skip(request);
    co_return false;
  }
  // What streams needs its writer at the next gate, so it cannot wait for its turn.
  if (request.on_busy != OnBusy::kReplace || staging_.streams()) {
    co_await io_->writes.join();
    co_return true;
  }
  if (waiting_ && waiting_->request.may_drop) {
    co_await replace_waiting();
  } else if (waiting_) {
    auto park = [this](Resumption resume) { io_->slot_free = std::move(resume); };
    co_await suspend(park);
  }
  co_return true;
}

Task<> Checkpointer::skip(const SaveRequest& request) {
  SaveJob skipped;
  skipped.request = request;
  skipped.request.mode = resolve(request.mode);
  skipped.describe(generation_, newest_.save_id);
  skipped.row.times.requested = skipped.row.times.call_returned = now();
  skipped.row.error = writing_->request.filename + " is still being written";
  ++counts_.skipped;
  run_.log.warn("Skipped saving " + request.filename + ": " + skipped.row.error);
  const CheckpointRow row = std::move(skipped.row);
  co_await run_.bus.publish(CheckpointSkipped{row});
}

Task<> Checkpointer::replace_waiting() {
  const JobPtr old = std::exchange(waiting_, nullptr);
  old->row.error = "a newer state took its place while " + writing_->request.filename +
                   " was still being written";
  old->snapshot->abandon(old->row.error);
  old->row.stall_gate = old->snapshot->gate_time();
  old->snapshot.reset();
  old->state = {};
  if (newest_.save_id == old->row.save_id) {
    newest_ = is_line_of_descent(writing_->request) ? writing_->record.identity : durable_;
  }
  lost_.insert(old->row.save_id);
  ++counts_.replaced;
  run_.log.warn("Gave up saving " + old->row.name + ": " + old->row.error);
  for (const auto& follower : old->followers) follower(*old, false);
  co_await run_.bus.publish(CheckpointReplaced{old->row});
  lost_.erase(old->row.save_id);
}

// Their history is part of the state.
Task<> Checkpointer::read_losses() {
  if (io_->waiter != nullptr) {
    try {
      while (const DeviceEvent* const event = run_.strategy.unread()) {
        co_await io_->waiter->wait(*event);
      }
    } catch (const DeviceError& error) {
      throw DeviceError("saving after iteration " + std::to_string(run_.at.iter), error);
    }
  }
  run_.hub.take_arrived(run_.at.iter);
}

Task<> Checkpointer::capture(JobPtr job) {
  SaveRequest& request = job->request;
  job->row.times.capture_started = now();
  job->saved_at_ns = run_.clock.unix_ns();
  request.mode = resolve(request.mode);
  job->state = run_.strategy.capture(request.save_optimizer);

  CheckpointContent& content = job->content;
  content.set("meta", meta_of(run_, request));
  content.begin(job->state);
  content.share("state_dict", job->state.state_dict);
  content.set("message_hub", run_.hub.python_state());
  if (request.save_optimizer) content.share("optimizer", job->state.optimizer);
  if (request.save_param_scheduler && !run_.schedules.empty()) {
    content.set("param_schedulers", run_.schedules.save());
  }
  auto& sections = content.sections();
  sections["rng"] = run_.strategy.save_rng();
  sections["hub"] = run_.hub.save_history();
  if (run_.train_loader != nullptr) sections["data"] = data_position(request);
  collect_states(hooks_, run_.states, sections);
  co_await run_.bus.publish(BeforeSaveCheckpoint{run_.at, content});
  content.detach();
  generation_ = std::min(generation_ + 1, kMaxGeneration);
  job->describe(generation_, newest_.save_id);
  job->record.sections = std::move(sections);
}

// Where the next batch comes from. At the end of an epoch that is the start of the next one, whose
// number the sampler learns when it begins.
std::string Checkpointer::data_position(const SaveRequest& request) const {
  LoaderPosition position = run_.train_loader->position();
  const bool epoch_finished = run_.at.by_epoch && request.epoch > run_.at.epoch;
  if (epoch_finished) position.batch = 0;
  RecordWriter out;
  out(position.epoch, position.batch, run_.train_loader->batches(),
      run_.train_loader->options().batch_size);
  return std::move(out).take();
}

void Checkpointer::start_writing(JobPtr job) {
  writing_ = job;
  io_->writes.spawn(write(std::move(job)));
}

Task<> Checkpointer::write(JobPtr job) {
  co_await write_with_retry(job);
  finish(job);
}

// Once more, always as a new file: after the disk was full while older files were on their way out,
// and after a failed sync, whose file is lost. Once the checkpoint itself is there, only its row
// and last_checkpoint are written again.
Task<> Checkpointer::write_with_retry(JobPtr job) {
  CheckpointRow& row = job->row;
  const auto work = [file = job.get()] { file->write_file(); };
  for (int attempt = 1;; ++attempt) {
    bool full = false, lost = false;
    const bool freeing = housekeeping_.removing();
    const std::uint64_t removals = housekeeping_.removals_begun();
    row.error.clear();
    job->snapshot->attach_writer();
    try {
      co_await run_on(io_->pool.executor(), work);
      co_return;
    } catch (const SnapshotDiscarded& error) {
      job->discarded = true;
      row.error = error.what();
    } catch (const StorageError& error) {
      full = error.error_number() == ENOSPC || error.error_number() == EDQUOT;
      lost = error.operation() == "fdatasync";
      row.error = error.what();
    } catch (const std::exception& error) {
      row.error = error.what();
    } catch (...) {
      row.error = "the storage threw something that is no std::exception";
    }
    full = full && (freeing || housekeeping_.removals_begun() != removals);
    const bool again =
        job->file_there || ((full || lost) && !job->discarded && job->snapshot->rereadable());
    if (attempt > 1 || !again) co_return;
    run_.log.warn((job->file_there ? "Recording " + row.name + " again: "
                                   : "Writing " + row.name + " again under a new name: ") +
                  row.error);
    if (full) co_await housekeeping_.join_removals();
  }
}

// The I/O thread is done with the job: its arena is free, and the next one may be written. What
// became of it is told at the loop's next yield.
void Checkpointer::finish(const JobPtr& job) {
  CheckpointRow& row = job->row;
  const bool committed = row.error.empty();
  row.bytes = row.written = job->io_bytes;
  row.in_place = job->file_there;
  row.stall_gate = job->snapshot->gate_time();
  row.times.staged = job->snapshot->staged_at();
  row.times.write_started = job->io_times.started;
  row.times.written = job->io_times.written;
  row.times.synced = job->io_times.synced;
  row.times.durable = job->io_times.durable;
  job->snapshot.reset();
  job->state = {};  // tensor handles are released here, on the train context
  if (committed && is_line_of_descent(job->request)) durable_ = job->record.identity;
  if (!committed && newest_.save_id == row.save_id) newest_ = durable_;
  if (!committed) lost_.insert(row.save_id);
  // Before what its followers have to tell.
  Inbox::Notice notice = [this, job, committed] { return publish_outcome(job, committed); };
  io_->inbox.post(std::move(notice));
  for (const auto& follower : job->followers) follower(*job, committed);
  job->followers.clear();

  writing_ = nullptr;
  if (waiting_) start_writing(std::exchange(waiting_, nullptr));
  if (io_->slot_free) std::exchange(io_->slot_free, Resumption())();
}

Task<> Checkpointer::publish_outcome(JobPtr job, bool committed) {
  const CheckpointRow& row = job->row;
  if (committed) {
    ++counts_.committed;
    co_await run_.bus.publish(CheckpointCommitted{row});
  } else if (job->discarded) {
    ++counts_.discarded;
    run_.log.warn("Discarded the snapshot for " + row.name + ": " + row.error);
    if (!job->request.retakes) fail(row.directory + "/" + row.name, "was not saved: " + row.error);
    co_await run_.bus.publish(CheckpointDiscarded{row});
  } else {
    ++counts_.failed;
    fail(row.directory + "/" + row.name, "was not saved: " + row.error);
    run_.log.error("Saving " + row.name + " failed after " +
                   time_text(now() - row.times.requested) +
                   ", earlier checkpoints are kept: " + row.error);
    co_await run_.bus.publish(CheckpointFailed{row});
  }
  lost_.erase(row.save_id);
}

void Checkpointer::fail(const std::string& path, const std::string& error) {
  failures_.push_back({path, error});
}

Checkpointer::JobPtr Checkpointer::find_job(const CheckpointStore& store,
                                            const std::string& name) const {
  for (const JobPtr& job : {waiting_, writing_}) {
    if (job && job->request.store == &store && job->request.filename == name) return job;
  }
  return nullptr;
}

// The catalog has no row of a file before it is committed.
void Checkpointer::after_commit(const JobPtr& job, std::function<void()> action) {
  if (!job) return action();
  job->followers.emplace_back([action = std::move(action)](const SaveJob&, bool committed) {
    if (committed) action();
  });
}

bool Checkpointer::lost(std::string_view save_id) const { return lost_.contains(save_id); }

void Checkpointer::protect(const CheckpointStore& store, const std::string& name) {
  if (const JobPtr job = find_job(store, name)) job->request.may_drop = false;
}

void Checkpointer::link(CheckpointStore& store, const std::string& source, CheckpointRow row,
                        std::map<std::string, double> scores) {
  row.directory = store.location();
  row.times.requested = row.times.call_returned = now();
  const JobPtr job = find_job(store, source);
  if (!job) return housekeeping_.link(store, source, std::move(row), std::move(scores));
  job->request.may_drop = false;
  job->followers.emplace_back([this, &store, source, row = std::move(row),
                               scores = std::move(scores)](const SaveJob& done, bool committed) {
    if (committed) return housekeeping_.link(store, source, row, scores);
    CheckpointRow failed = row;
    failed.error = source + ", whose state it is, was not saved: " + done.row.error;
    housekeeping_.refuse_link(std::move(failed));
  });
}

void Checkpointer::publish(CheckpointStore& store, const std::string& name,
                           std::vector<std::string> keys) {
  const auto publish = [this, &store, name, keys = std::move(keys)] {
    housekeeping_.publish(store, name, keys);
  };
  after_commit(find_job(store, name), publish);
}

void Checkpointer::retire(CheckpointStore& store, std::vector<std::string> names) {
  housekeeping_.retire(store, std::move(names));
}

bool Checkpointer::retiring(const CheckpointStore& store, const std::string& name) const {
  return housekeeping_.retiring(store, name);
}

void Checkpointer::score(CheckpointStore& store, std::string save_id,
                         std::map<std::string, double> scores) {
  JobPtr found;
  for (const JobPtr& job : {waiting_, writing_}) {
    if (job && job->request.save_id == save_id) found = job;
  }
  after_commit(found,
               [this, &store, save_id, scores] { housekeeping_.score(store, save_id, scores); });
}

void Checkpointer::pin(CheckpointStore& store, const std::string& name, bool pinned) {
  const JobPtr job = find_job(store, name);
  after_commit(job, [this, &store, name, pinned] { housekeeping_.pin(store, name, pinned); });
}

Task<> Checkpointer::drain() {
  if (!io_) co_return;
  std::exception_ptr error;
  do {
    try {
      co_await io_->writes.join();
      co_await housekeeping_.join();
      co_await io_->inbox.deliver();
    } catch (...) {  // a hook's; what is in flight must end all the same
      if (!error) error = std::current_exception();
    }
  } while (io_->writes.active() > 0 || !housekeeping_.idle() || !io_->inbox.empty());
  if (error) std::rethrow_exception(error);
}

void Checkpointer::continue_from(const CheckpointIdentity& identity) {
  newest_ = durable_ = identity;
  generation_ = std::max(generation_, identity.generation);
}

}  // namespace millrace
