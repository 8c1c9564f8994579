#include "millrace/runtime/engine/checkpointer.h"

#include <algorithm>
#include <asio/this_coro.hpp>
#include <chrono>
#include <exception>
#include <utility>

#include "millrace/events/checkpoint_events.h"
#include "millrace/events/event_bus.h"
#include "millrace/io/directory_lock.h"
#include "millrace/io/local_storage.h"
#include "millrace/io/pickler.h"
#include "millrace/runtime/async/inbox.h"
#include "millrace/runtime/async/io_pool.h"
#include "millrace/runtime/async/run_on.h"
#include "millrace/runtime/async/task_scope.h"
#include "millrace/runtime/engine/checkpoint_content.h"
#include "millrace/runtime/engine/data_loader.h"
#include "millrace/runtime/engine/hook.h"
#include "millrace/runtime/engine/logger.h"
#include "millrace/runtime/engine/message_hub.h"
#include "millrace/runtime/engine/param_schedule.h"
#include "millrace/runtime/engine/pth_image.h"
#include "millrace/runtime/engine/record_stream.h"
#include "millrace/runtime/engine/run_context.h"
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

// Absolute, and without a last slash.
std::filesystem::path full_path(const std::filesystem::path& path) {
  const auto full = std::filesystem::absolute(path).lexically_normal();
  return full.has_filename() ? full : full.parent_path();
}

Task<> publish_removed(EventBus* bus, std::shared_ptr<RemovedRow> row) {
  co_await bus->publish(CheckpointRemoved{*row});
}

}  // namespace

// One save. Outlives save(): the I/O thread and the completion share it.
struct Checkpointer::Job {
  SaveRequest request;
  CheckpointRow row;
  CheckpointContent content;
  CapturedState state;
  StateRecord record;
  std::shared_ptr<Snapshot> snapshot;
  CommitTimes io_times;  // written by the I/O thread, read after it is done
  std::uint64_t bytes = 0;

  void write_file() {
    try {
      std::vector<PthLayout::NamedBytes> extra;
      extra.emplace_back("millrace/state", encode_state_record(record));
      PthImage image(snapshot, pickle::pickle(content.root()), std::move(extra));
      bytes = image.size();
      io_times = request.store->commit(request.filename, image);
    } catch (...) {
      snapshot->secure_all();  // live memory and the arena are in use until then
      throw;
    }
  }
};

struct Checkpointer::Io {
  Inbox& inbox;
  IoPool& pool;
  TaskScope writes;  // at most one
  TaskScope removals;
  std::vector<DirectoryLock> locks = {};
};

Checkpointer::Checkpointer(RunContext& run, Staging& staging, const HookList& hooks,
                           std::unique_ptr<Storage> default_storage)
    : run_(run), staging_(staging), hooks_(hooks) {
  directories_.insert(full_path(run.work_dir));
  storages_.push_back(std::make_unique<LocalStorage>(run.work_dir));
  work_storage_ = storages_.back().get();
  default_storage_ = work_storage_;
  if (default_storage) {
    storages_.push_back(std::move(default_storage));
    default_storage_ = storages_.back().get();
  }
}

Checkpointer::~Checkpointer() = default;

CheckpointStore& Checkpointer::open_store(const std::filesystem::path& out_dir) {
  Storage* storage = default_storage_;
  const std::filesystem::path work_dir = full_path(run_.work_dir);
  if (!out_dir.empty() && full_path(out_dir) != work_dir) {
    directories_.insert(full_path(out_dir / work_dir.filename()));
    storages_.push_back(std::make_unique<LocalStorage>(out_dir / work_dir.filename()));
    storage = storages_.back().get();
  }
  stores_.push_back(std::make_unique<CheckpointStore>(*storage, *work_storage_));
  opened_.push_back(stores_.back().get());
  return *stores_.back();
}

std::vector<CheckpointStore*> Checkpointer::stores() {
  if (!opened_.empty()) return opened_;
  if (stores_.empty()) {
    stores_.push_back(std::make_unique<CheckpointStore>(*default_storage_, *work_storage_));
  }
  return {stores_.front().get()};
}

Task<> Checkpointer::start(asio::any_io_executor train, Inbox& inbox, IoPool& io) {
  io_.reset(new Io{inbox, io, TaskScope(train), TaskScope(train)});
  failures_.clear();
  if (opened_.empty()) co_return;  // nobody saves
  const auto prepare = [this] {
    lock_directories();
    std::vector<std::string> removed = work_storage_->prepare();
    for (CheckpointStore* store : opened_) {
      for (std::string& name : store->prepare()) removed.push_back(std::move(name));
      generation_ = std::max(generation_, store->highest_generation());
    }
    return removed;
  };
  const std::vector<std::string> removed = co_await run_on(io.executor(), prepare);
  for (const std::string& name : removed) {
    run_.log.info("Removed " + name + ", left behind by an interrupted save");
  }
}

// Before prepare(), which sweeps what a crash left behind: another run's files are not that.
void Checkpointer::lock_directories() {
  for (const std::filesystem::path& directory : directories_) {
    std::error_code ignored;  // prepare() says why it cannot be made
    std::filesystem::create_directories(directory, ignored);
    io_->locks.emplace_back(directory);
  }
}

void Checkpointer::release() {
  if (io_) io_->locks.clear();
}

void Checkpointer::reserve() {
  if (opened_.empty()) return;
  const CapturedState state = run_.strategy.capture(true);
  std::vector<std::uint64_t> sizes;
  for (const CapturedStorage& storage : state.storages) sizes.push_back(storage.bytes.size());
  staging_.reserve(PthLayout(sizes).storages_end());
}

StageMode Checkpointer::resolve(StageMode mode) const {
  if (mode != StageMode::kAuto) return mode;
  return run_.strategy.uses_every_core() ? StageMode::kEager : StageMode::kLazy;
}

Task<> Checkpointer::save(SaveRequest request) {
  auto job = std::make_shared<Job>();
  job->row.times.requested = now();
  job->request = std::move(request);
  co_await io_->writes.join();
  co_await capture(job);
  job->snapshot = staging_.begin(job->state.storages, job->request.mode);
  last_saved_iter_ = job->request.iter;
  io_->writes.spawn(write(job));
  const bool blocking = job->request.mode == StageMode::kBlocking;
  if (blocking) co_await io_->writes.join();
  job->row.times.call_returned = now();
  job->row.stall_call = job->row.times.call_returned - job->row.times.requested;
  co_await run_.bus.publish(CheckpointCaptured{job->row});
}

Task<> Checkpointer::capture(std::shared_ptr<Job> job) {
  SaveRequest& request = job->request;
  CheckpointRow& row = job->row;
  row.times.capture_started = now();
  request.mode = resolve(request.mode);
  job->state = run_.strategy.capture(request.save_optimizer);

  CheckpointContent& content = job->content;
  content.set("meta", meta_of(run_, request));
  content.set("state_dict", job->state.state_dict);
  content.set("message_hub", run_.hub.python_state());
  if (request.save_optimizer) content.set("optimizer", job->state.optimizer);
  if (request.save_param_scheduler && !run_.schedules.empty()) {
    content.set("param_schedulers", run_.schedules.save());
  }
  auto& sections = content.sections();
  sections["rng"] = run_.strategy.save_rng();
  sections["hub"] = run_.hub.save_history();
  if (run_.train_loader != nullptr) sections["data"] = data_position(request);
  for (const HookList::Entry& entry : hooks_.entries()) {
    std::string state = entry.hook->save_state();
    if (!state.empty()) sections["hook/" + std::string(entry.hook->name())] = std::move(state);
  }
  co_await run_.bus.publish(BeforeSaveCheckpoint{run_.at, content});
  content.detach();

  CheckpointIdentity& identity = job->record.identity;
  identity.save_id = new_save_id();
  identity.parent_id = parent_id_;
  identity.generation = ++generation_;
  identity.reason = request.reason;
  identity.epoch = request.epoch;
  identity.iter = request.iter;
  job->record.sections = std::move(sections);

  row.name = request.filename;
  row.directory = request.store->location();
  row.reason = request.reason;
  row.mode = stage_mode_name(request.mode);
  row.save_id = identity.save_id;
  row.generation = identity.generation;
  row.epoch = request.epoch;
  row.iter = request.iter;
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

Task<> Checkpointer::write(std::shared_ptr<Job> job) {
  CheckpointRow& row = job->row;
  const auto work = [file = job.get()] { file->write_file(); };
  try {
    co_await run_on(io_->pool.executor(), work);
    parent_id_ = row.save_id;  // before the next capture, which waits for this task
  } catch (const std::exception& error) {
    row.error = error.what();
  } catch (...) {
    row.error = "the storage threw something that is no std::exception";
  }
  job->state = {};  // tensor handles are released here, on the train context
  row.bytes = job->bytes;
  row.stall_gate = job->snapshot->gate_time();
  row.times.staged = job->snapshot->staged_at();
  row.times.write_started = job->io_times.started;
  row.times.written = job->io_times.written;
  row.times.synced = job->io_times.synced;
  row.times.durable = job->io_times.durable;
  Inbox::Notice notice = [this, job] { return publish_outcome(job); };
  io_->inbox.post(std::move(notice));
}

Task<> Checkpointer::publish_outcome(std::shared_ptr<Job> job) {
  const CheckpointRow& row = job->row;
  if (row.error.empty()) {
    co_await run_.bus.publish(CheckpointCommitted{row});
    co_return;
  }
  failures_.push_back({row.directory + "/" + row.name, row.error});
  run_.log.error("Saving " + row.name + " failed, earlier checkpoints are kept: " + row.error);
  last_saved_iter_ = last_saved_iter_ == row.iter ? -1 : last_saved_iter_;
  co_await run_.bus.publish(CheckpointFailed{row});
}

void Checkpointer::retire(CheckpointStore& store, std::vector<std::string> names) {
  if (!names.empty()) io_->removals.spawn(remove(&store, std::move(names)));
}

Task<> Checkpointer::remove(CheckpointStore* store, std::vector<std::string> names) {
  for (const std::string& name : names) {
    auto row = std::make_shared<RemovedRow>();
    row->name = name;
    const auto work = [store, &name, out = row.get()] {
      out->started = now();
      store->retire(name);
      out->finished = now();
    };
    try {
      co_await run_on(io_->pool.executor(), work);
    } catch (const std::exception& error) {
      row->error = error.what();
      run_.log.warn("Removing the old checkpoint " + name + " failed: " + row->error);
    }
    Inbox::Notice notice = [this, row] { return publish_removed(&run_.bus, row); };
    io_->inbox.post(std::move(notice));
  }
}

Task<> Checkpointer::drain() {
  if (!io_) co_return;
  std::exception_ptr error;
  do {
    try {
      co_await io_->writes.join();
      co_await io_->removals.join();
      co_await io_->inbox.deliver();
    } catch (...) {  // a hook's; what is in flight must end all the same
      if (!error) error = std::current_exception();
    }
  } while (io_->writes.active() + io_->removals.active() > 0 || !io_->inbox.empty());
  if (error) std::rethrow_exception(error);
}

void Checkpointer::continue_from(const CheckpointIdentity& identity) {
  parent_id_ = identity.save_id;
  generation_ = std::max(generation_, identity.generation);
  last_saved_iter_ = identity.iter;
}

}  // namespace millrace
