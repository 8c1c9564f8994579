#include "millrace/runtime/engine/runner.h"

#include <algorithm>
#include <asio/this_coro.hpp>
#include <chrono>
#include <mutex>
#include <random>
#include <stop_token>
#include <utility>

#include "millrace/events/checkpoint_events.h"
#include "millrace/events/event_bus.h"
#include "millrace/events/hook_error.h"
#include "millrace/runtime/async/clock.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/async/inbox.h"
#include "millrace/runtime/async/run_on.h"
#include "millrace/runtime/async/task_scope.h"
#include "millrace/runtime/device/event_waiter.h"
#include "millrace/runtime/engine/checkpointer.h"
#include "millrace/runtime/engine/loop.h"
#include "millrace/runtime/engine/message_hub.h"
#include "millrace/runtime/engine/resume.h"
#include "millrace/runtime/engine/run_context.h"
#include "millrace/runtime/engine/timestamp.h"

namespace millrace {
namespace {

std::uint64_t drawn_seed() {
  std::random_device device;
  return device() & 0x7FFFFFFFu;  // 0 .. 2^31 - 1, as the reference draws it
}

void check(const RunOptions& options, const Parts& parts) {
  if (options.work_dir.empty()) throw ConfigError("work_dir", "is required");
  if (!parts.strategy) throw ConfigError("strategy", "is required");
  if (!parts.train) throw ConfigError("train", "a data loader to train on is required");
  if ((options.max_epochs > 0) == (options.max_iters > 0)) {
    throw ConfigError("max_epochs", "give exactly one of max_epochs and max_iters, above 0");
  }
  if (options.val_begin < 0) throw ConfigError("val_begin", "must not be negative");
  if (options.val_interval && *options.val_interval < 1) {
    throw ConfigError("val_interval", "must be at least 1");
  }
  const std::size_t window = options.log_processor.window_size;
  if (options.scalar_history < std::max<std::size_t>(window, 1)) {
    throw ConfigError("scalar_history", "must be at least 1, and log_processor.window_size, " +
                                            std::to_string(window));
  }
  if ((parts.val != nullptr) != !parts.metrics.empty()) {
    throw ConfigError("val", "val and metrics should be either both given or both left out");
  }
  if (options.resume.wanted() && !options.load_from.empty()) {
    throw ConfigError("load_from", "give either load_from or resume; resume takes the path itself");
  }
}

Progress first_progress(const RunOptions& options, const DataLoader& train) {
  Progress at;
  at.by_epoch = options.max_epochs > 0;
  at.epoch_length = train.batches();
  at.max_epochs = at.by_epoch ? options.max_epochs : 1;
  at.max_iters = at.by_epoch ? options.max_epochs * at.epoch_length : options.max_iters;
  return at;
}

void make_folder(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) {
    throw StorageError("create directory", path.string(), error.value(),
                       "choose a work_dir that can be written");
  }
}

}  // namespace

struct Runner::Impl {
  Impl(RunOptions given_options, Parts given_parts);
  ~Impl();

  Task<> train();
  Task<> stages(bool fresh);
  Task<> restore();
  Task<> clean_up();
  Task<> deliver_stop();
  void subscribe_hooks();
  void log_hook_errors();
  void request_stop(std::string_view reason);
  void checkpoint_now(bool pinned);
  Task<> deliver_request(bool pinned);
  void bind_inbox(Inbox* bound);
  void forget_stop();
  IoPool& io();

  RunOptions options;
  Parts parts;
  const std::string started = timestamp();
  const std::filesystem::path log_dir = options.work_dir / started;
  Logger log;
  Progress at;
  EventBus bus;  // an observer's error is logged at once, and thrown at the end
  MessageHub hub;
  LogProcessor log_processor;
  ParamSchedules schedules;
  Evaluator evaluator;
  Staging staging;
  RunContext context;  // refers to the members around it
  Checkpointer checkpointer;
  std::unique_ptr<IoPool> own_io;
  std::unique_ptr<EventWaiter> waiter;  // for the strategy's device, where it has one
  std::vector<Subscription> subscriptions;
  enum class State { kFresh, kRunning, kFinished, kFailed };
  State state = State::kFresh;
  bool takes_stops = false;  // train context

  // A stop travels from any thread through the inbox to the train context.
  std::mutex stop_mutex;
  bool stop_requested = false;  // guarded by stop_mutex, as are the next two
  std::string requested_reason;
  Inbox* inbox = nullptr;  // while train() runs
  bool stopped = false;    // train context
  std::string stop_reason;
};

namespace {

Logger::Options logger_options(const RunOptions& options, const std::filesystem::path& log_dir) {
  make_folder(log_dir);
  Logger::Options log;
  log.level = options.log_level;
  log.console = options.log_console;
  log.sink = options.log_sink;
  log.file = log_dir / (log_dir.filename().string() + ".log");
  return log;
}

Parts with_clock(Parts parts) {
  if (!parts.clock) parts.clock = std::make_shared<SystemClock>();
  return parts;
}

StagingOptions staging_options(const RunOptions& options, const Parts& parts) {
  StagingOptions staging;
  staging.memory_budget = options.checkpoint_memory_budget;
  staging.probe = parts.copy_probe;
  return staging;
}

RunOptions checked(RunOptions options, const Parts& parts) {
  check(options, parts);
  return options;
}

}  // namespace

Runner::Impl::Impl(RunOptions given_options, Parts given_parts)
    : options(checked(std::move(given_options), given_parts)),
      parts(with_clock(std::move(given_parts))),
      log(logger_options(options, log_dir)),
      at(first_progress(options, *parts.train)),
      bus([this](const HookError& error) { log.error(error.what()); }),
      hub(options.scalar_history),
      log_processor(options.log_processor, hub),
      schedules(std::move(parts.param_schedulers)),
      evaluator(std::move(parts.metrics)),
      staging(staging_options(options, parts)),
      context{at,
              *parts.strategy,
              hub,
              bus,
              log,
              log_processor,
              checkpointer,
              staging.gate(),
              schedules,
              *parts.clock,
              parts.states,
              parts.train.get(),
              parts.val.get(),
              options.work_dir,
              log_dir,
              options.experiment_name.empty() ? started : options.experiment_name + "_" + started,
              options.seed ? *options.seed : drawn_seed(),
              options.config_text,
              evaluator.names(),
              [this](std::string_view reason) { request_stop(reason); }},
      checkpointer(context, staging, parts.hooks, std::move(parts.storage),
                   std::move(parts.file_ops)) {
  for (DataLoader* loader : {parts.train.get(), parts.val.get()}) {
    if (loader != nullptr && !loader->options().seed) loader->sampler().set_seed(context.seed);
  }
}

// Hooks may use everything in their context, so they go first.
Runner::Impl::~Impl() {
  subscriptions.clear();
  parts.hooks = HookList();
}

IoPool& Runner::Impl::io() {
  if (options.shared_io != nullptr) return *options.shared_io;
  if (!own_io) own_io = std::make_unique<IoPool>(options.io);
  return *own_io;
}

void Runner::Impl::subscribe_hooks() {
  parts.hooks.close();
  parts.states.close();
  for (const HookList::Entry& entry : parts.hooks.entries()) entry.hook->attach(context);
  for (const HookList::Entry& entry : parts.hooks.entries()) {
    if (entry.isolated) {
      entry.isolated->log_to([this](const std::string& line) { log.error(line); });
    }
    Subscriptions on(bus, std::string(entry.hook->name()), entry.priority, entry.isolated);
    entry.hook->subscribe(on);
    for (Subscription& subscription : on.release()) {
      subscriptions.push_back(std::move(subscription));
    }
  }
  log.info(parts.hooks.table());
}

void Runner::Impl::log_hook_errors() {
  std::string text;
  for (const HookErrors& row : parts.hooks.errors()) {
    if (row.errors == 0) continue;
    text += "\n" + row.hook + ": " + std::to_string(row.errors) +
            (row.disabled ? ", disabled" : "") + "; the last: " + row.last_error;
  }
  if (!text.empty()) log.warn("Errors of isolated hooks:" + text);
}

Task<> Runner::Impl::train() {
  if (state == State::kRunning) throw Error("train() is already running on this runner");
  if (state == State::kFailed) {
    throw Error(
        "an earlier train() of this runner failed, so its state cannot be trusted; make a "
        "new runner and resume from the newest checkpoint");
  }
  const bool fresh = std::exchange(state, State::kRunning) == State::kFresh;
  stopped = false;  // what ended an earlier train() does not end this one
  stop_reason.clear();
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  Inbox box;
  std::exception_ptr error;
  try {
    if (fresh) {
      parts.strategy->prepare(context.seed, staging.gate());
      if (DeviceStream* const train = parts.strategy->train_stream()) {
        staging.attach(*train);
        waiter = std::make_unique<EventWaiter>();
      }
      subscribe_hooks();
    }
    co_await checkpointer.start(executor, box, io(), waiter.get());
    bind_inbox(&box);
    takes_stops = true;
    co_await stages(fresh);
  } catch (...) {
    error = std::current_exception();
  }
  // What an error left behind is no state to save: a stop from here on only ends.
  takes_stops = false;
  bind_inbox(nullptr);
  const State outcome = error ? State::kFailed : State::kFinished;
  context.failed = error != nullptr;
  try {
    co_await clean_up();
  } catch (...) {
    if (!error) error = std::current_exception();
  }
  state = outcome;  // not before: tasks of this train() run until here
  forget_stop();
  log.flush();
  if (error) std::rethrow_exception(error);
}

Task<> Runner::Impl::stages(bool fresh) {
  log.info("Seed: " + std::to_string(context.seed));
  co_await bus.publish(BeforeRun{at});
  if (fresh) co_await restore();
  schedules.start(parts.strategy->learning_rates());
  checkpointer.reserve();

  LoopParts loop{at, bus, *inbox, *parts.strategy, stopped, waiter.get()};
  std::optional<ValLoop> val;
  if (parts.val) val.emplace(loop, *parts.val, evaluator);
  ValPlan plan;
  plan.begin = options.val_begin;
  plan.interval = options.val_interval.value_or(at.by_epoch ? 1 : 1000);
  TrainLoop train_loop(loop, *parts.train, val ? &*val : nullptr, plan);
  co_await train_loop.run();
}

// Drains I/O and ends the run, whatever happened before. The first error of the clean-up is thrown,
// but every step is taken.
Task<> Runner::Impl::clean_up() {
  std::exception_ptr error;
  try {
    co_await checkpointer.drain();
  } catch (...) {
    error = std::current_exception();
  }
  try {
    if (waiter) co_await parts.strategy->drain(*waiter);
  } catch (...) {
    if (!error) error = std::current_exception();
  }
  try {
    co_await bus.publish(AfterRun{at});
  } catch (...) {
    if (!error) error = std::current_exception();
  }
  try {
    co_await checkpointer.drain();  // what AfterRun saved or removed
  } catch (...) {
    if (!error) error = std::current_exception();
  }
  try {
    co_await bus.close();
  } catch (...) {
    if (!error) error = std::current_exception();
  }
  checkpointer.end();
  log_hook_errors();
  if (error) std::rethrow_exception(error);
  if (!checkpointer.failures().empty()) {
    const auto& failures = checkpointer.failures();
    throw CheckpointError(failures.front().path,
                          failures.front().error + " (" + std::to_string(failures.size()) +
                              " of this run's saves failed; earlier checkpoints are intact)");
  }
}

Task<> Runner::Impl::restore() {
  // The schedules' first step belongs to a fresh run; a resumed one takes their state from the
  // file.
  schedules.start(parts.strategy->learning_rates());
  if (!options.load_from.empty()) {
    const auto read = [path = &options.load_from] { return CheckpointFile::read_path(*path); };
    CheckpointFile file = co_await run_on(io().executor(), read);
    co_await load_weights(std::move(file), context);
    co_return;
  }
  if (!options.resume.wanted()) co_return;
  if (!options.resume.path().empty()) {
    const auto read = [path = &options.resume.path()] { return CheckpointFile::read_path(*path); };
    CheckpointFile file = co_await run_on(io().executor(), read);
    co_await resume_from(std::move(file), context, at, parts.hooks);
    co_return;
  }
  const std::vector<CheckpointStore*> stores = checkpointer.stores();
  const auto find = [&stores, this] { return find_newest(stores, options.work_dir); };
  FoundCheckpoint found = co_await run_on(io().executor(), find);
  for (const std::string& note : found.notes) log.warn(note);
  if (found.file) {
    co_await resume_from(std::move(*found.file), context, at, parts.hooks);
  } else {
    log.info("Did not find a checkpoint to resume from in " + options.work_dir.string() +
             ": starting from scratch");
  }
}

void Runner::Impl::request_stop(std::string_view reason) {
  const std::scoped_lock lock(stop_mutex);
  if (std::exchange(stop_requested, true)) return;
  requested_reason = reason;
  if (inbox != nullptr) {
    inbox->post([this] { return deliver_stop(); });
  }
}

void Runner::Impl::checkpoint_now(bool pinned) {
  const std::scoped_lock lock(stop_mutex);
  if (inbox == nullptr) return;
  inbox->post([this, pinned] { return deliver_request(pinned); });
}

Task<> Runner::Impl::deliver_request(bool pinned) {
  if (!takes_stops) co_return;
  co_await bus.publish(CheckpointRequested{pinned});
}

void Runner::Impl::bind_inbox(Inbox* bound) {
  const std::scoped_lock lock(stop_mutex);
  inbox = bound;
  if (bound != nullptr && stop_requested && !stopped) {
    bound->post([this] { return deliver_stop(); });
  }
}

// A stop ends one train(); the next one runs on.
void Runner::Impl::forget_stop() {
  const std::scoped_lock lock(stop_mutex);
  stop_requested = false;
}

Task<> Runner::Impl::deliver_stop() {
  if (!takes_stops) co_return;
  stopped = true;
  {
    const std::scoped_lock lock(stop_mutex);
    stop_reason = requested_reason;
  }
  log.info("Stop requested (" + stop_reason + "): finishing after iteration " +
           std::to_string(at.iter));
  co_await bus.publish(StopRequested{at, stop_reason});
}

Runner::Runner(RunOptions options, Parts parts)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(parts))) {}
Runner::~Runner() = default;

HookList& Runner::hooks() noexcept { return impl_->parts.hooks; }
RunStates& Runner::states() noexcept { return impl_->parts.states; }
EventBus& Runner::bus() noexcept { return impl_->bus; }
MessageHub& Runner::hub() noexcept { return impl_->hub; }
Logger& Runner::log() noexcept { return impl_->log; }
Strategy& Runner::strategy() noexcept { return *impl_->parts.strategy; }
const Progress& Runner::progress() const noexcept { return impl_->at; }
const RunOptions& Runner::options() const noexcept { return impl_->options; }
std::vector<HookErrors> Runner::hook_errors() const { return impl_->parts.hooks.errors(); }
std::uint64_t Runner::seed() const noexcept { return impl_->context.seed; }
bool Runner::stopped() const noexcept { return impl_->stopped; }
const std::string& Runner::stop_reason() const noexcept { return impl_->stop_reason; }
void Runner::request_stop(std::string_view reason) { impl_->request_stop(reason); }
void Runner::checkpoint_now(bool pinned) { impl_->checkpoint_now(pinned); }

// A scope of its own keeps the host's Asio cancellation out: it would end awaits of a run that has
// I/O in flight. request_stop() is the way to end one.
Task<> Runner::train() {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  TaskScope shield(executor);
  shield.spawn(impl_->train());
  co_await shield.join();
}

}  // namespace millrace
