#include "millrace/runtime/engine/housekeeping.h"

#include <chrono>
#include <exception>
#include <utility>

#include "millrace/events/event_bus.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/async/inbox.h"
#include "millrace/runtime/async/io_pool.h"
#include "millrace/runtime/async/quantity.h"
#include "millrace/runtime/async/run_on.h"
#include "millrace/runtime/async/task_scope.h"
#include "millrace/runtime/engine/logger.h"
#include "millrace/runtime/engine/run_context.h"

namespace millrace {
namespace {

SteadyTime now() { return std::chrono::steady_clock::now(); }

std::string key_list(const std::vector<std::string>& keys) {
  std::string text = "[";
  for (const std::string& key : keys) text += (text.size() > 1 ? ", '" : "'") + key + "'";
  return text + "]";
}

}  // namespace

struct Housekeeping::Io {
  Inbox& inbox;
  asio::any_io_executor pool;
  TaskScope others;
  TaskScope removals;
};

class Housekeeping::Use {
 public:
  Use(Housekeeping& owner, const std::string& name)
      : owner_(owner), place_(owner.in_use_.insert(name)) {}
  ~Use() {
    owner_.in_use_.erase(place_);
    for (Resumption& remover : std::exchange(owner_.removers_, {})) remover();
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

 private:
  Housekeeping& owner_;
  std::multiset<std::string>::iterator place_;
};

Task<> Housekeeping::until_unused(const std::string& name) {
  while (in_use_.contains(name)) {
    auto park = [this](Resumption resume) { removers_.push_back(std::move(resume)); };
    co_await suspend(park);
  }
}

Housekeeping::Housekeeping(RunContext& run, OnFailure failed)
    : run_(run), failed_(std::move(failed)) {}

Housekeeping::~Housekeeping() = default;

void Housekeeping::start(asio::any_io_executor train, Inbox& inbox, IoPool& io) {
  io_.reset(new Io{inbox, io.executor(), TaskScope(train), TaskScope(train)});
}

void Housekeeping::end() { io_.reset(); }

Housekeeping::Io& Housekeeping::io() const {
  if (io_) return *io_;
  throw Error("files of checkpoints can be changed only while train() runs: call from a hook");
}

void Housekeeping::link(CheckpointStore& store, std::string source, CheckpointRow row,
                        std::map<std::string, double> scores) {
  auto shared = std::make_shared<CheckpointRow>(std::move(row));
  auto use = std::make_unique<Use>(*this, source);
  io().others.spawn(
      link_task(&store, std::move(source), std::move(shared), std::move(scores), std::move(use)));
}

void Housekeeping::refuse_link(CheckpointRow row) {
  auto shared = std::make_shared<CheckpointRow>(std::move(row));
  Inbox::Notice notice = [this, shared] { return linked(shared); };
  io_->inbox.post(std::move(notice));
}

Task<> Housekeeping::link_task(CheckpointStore* store, std::string source,
                               std::shared_ptr<CheckpointRow> row,
                               std::map<std::string, double> scores, std::unique_ptr<Use> use) {
  const auto work = [store, &source, out = row.get(), &scores] {
    out->times.write_started = now();
    CheckpointStore::CommitOptions options;
    options.identity.save_id = out->save_id;
    options.scores = scores;
    if (!out->in_place) out->written = store->link_file(source, out->name, options);
    out->in_place = true;
    store->link_row(source, out->name, options);
    out->times.written = out->times.synced = out->times.durable = now();
  };
  for (int attempt = 1; attempt <= 2; ++attempt) {
    row->error.clear();
    try {
      co_await run_on(io_->pool, work);
    } catch (const std::exception& error) {
      row->error = error.what();
    }
    if (row->error.empty() || !row->in_place || attempt == 2) break;
    run_.log.warn("Recording " + row->name + " again: " + row->error);
  }
  use.reset();
  row->mode = row->written == 0 ? "link" : "copy";
  Inbox::Notice notice = [this, row] { return linked(row); };
  io_->inbox.post(std::move(notice));
}

Task<> Housekeeping::linked(std::shared_ptr<CheckpointRow> row) {
  if (row->error.empty()) {
    co_await run_.bus.publish(CheckpointCommitted{*row});
  } else {
    failed_(row->directory + "/" + row->name, row->error);
    co_await run_.bus.publish(CheckpointFailed{*row});
  }
}

void Housekeeping::publish(CheckpointStore& store, std::string name,
                           std::vector<std::string> keys) {
  auto row = std::make_shared<PublishedRow>();
  row->name = std::move(name);
  row->directory = store.location();
  auto use = std::make_unique<Use>(*this, row->name);
  io().others.spawn(publish_task(&store, std::move(row), std::move(keys), std::move(use)));
}

Task<> Housekeeping::publish_task(CheckpointStore* store, std::shared_ptr<PublishedRow> row,
                                  std::vector<std::string> keys, std::unique_ptr<Use> use) {
  const auto work = [store, out = row.get(), &keys] {
    out->started = now();
    PublishedCheckpoint done = store->publish(out->name, keys);
    out->finished = now();
    out->published_name = done.name;
    out->sha256 = done.sha256;
    out->bytes = done.bytes;
    return done;
  };
  try {
    const PublishedCheckpoint done = co_await run_on(io_->pool, work);
    if (!done.missing_keys.empty()) {
      run_.log.warn(row->name + " has no " + key_list(done.missing_keys) +
                    ", which published_keys asks for");
    }
    if (!done.removed_keys.empty()) {
      const std::string list = key_list(done.removed_keys);
      run_.log.info("Key " + list + " will be removed because they are not found in " +
                    "published_keys. If you want to keep them, please set " + list +
                    " in published_keys");
    }
  } catch (const std::exception& error) {
    row->error = error.what();
    row->finished = now();
  }
  use.reset();
  Inbox::Notice notice = [this, row] { return published(row); };
  io_->inbox.post(std::move(notice));
}

Task<> Housekeeping::published(std::shared_ptr<PublishedRow> row) {
  const std::string path = row->directory + "/" + row->name;
  if (row->error.empty()) {
    run_.log.info("The checkpoint (" + path + ") is published to " + row->directory + "/" +
                  row->published_name + " (" + size_text(row->bytes) + " in " +
                  time_text(row->finished - row->started) + ").");
  } else {
    run_.log.error("Publishing " + path + " failed: " + row->error);
    failed_(path, "was not published: " + row->error);
  }
  co_await run_.bus.publish(CheckpointPublished{*row});
}

void Housekeeping::retire(CheckpointStore& store, std::vector<std::string> names) {
  if (names.empty()) return;
  ++removals_begun_;
  for (const std::string& name : names) retiring_.emplace(&store, name);
  io().removals.spawn(retire_task(&store, std::move(names)));
}

Task<> Housekeeping::retire_task(CheckpointStore* store, std::vector<std::string> names) {
  for (const std::string& name : names) {
    co_await until_unused(name);
    auto row = std::make_shared<RemovedRow>();
    row->name = name;
    row->directory = store->location();
    const auto work = [store, &name, out = row.get()] {
      out->started = now();
      out->bytes = store->retire(name);
      out->finished = now();
    };
    try {
      co_await run_on(io_->pool, work);
    } catch (const std::exception& error) {
      row->error = error.what();
      row->finished = now();
    }
    retiring_.erase(retiring_.find({store, name}));
    Inbox::Notice notice = [this, row] { return removed(row); };
    io_->inbox.post(std::move(notice));
  }
}

Task<> Housekeeping::removed(std::shared_ptr<RemovedRow> row) {
  if (row->error.empty()) {
    run_.log.info("Removed " + row->name + " (" + size_text(row->bytes) + " in " +
                  time_text(row->finished - row->started) + ")");
  } else {
    run_.log.warn("Removing the old checkpoint " + row->name + " failed: " + row->error);
  }
  co_await run_.bus.publish(CheckpointRemoved{*row});
}

void Housekeeping::score(CheckpointStore& store, std::string save_id,
                         std::map<std::string, double> scores) {
  std::function<void()> change = [&store, save_id = std::move(save_id),
                                  scores = std::move(scores)] {
    for (const auto& [metric, value] : scores) store.score(save_id, metric, value);
  };
  change_catalog(std::move(change));
}

void Housekeeping::pin(CheckpointStore& store, std::string name, bool pinned) {
  std::function<void()> change = [&store, name = std::move(name), pinned] {
    store.pin(name, pinned);
  };
  change_catalog(std::move(change));
}

void Housekeeping::change_catalog(std::function<void()> change) {
  TaskScope& tasks = io().others;
  changes_.push_back(std::move(change));
  if (changes_.size() == 1) tasks.spawn(catalog_task());
}

// One after the other, in the order they were asked for: the last pin is the one that counts.
Task<> Housekeeping::catalog_task() {
  for (; !changes_.empty(); changes_.pop_front()) {
    try {
      co_await run_on(io_->pool, std::move(changes_.front()));
    } catch (const std::exception& error) {
      run_.log.warn("The catalog of checkpoints was not changed: " + std::string(error.what()));
    }
  }
}

bool Housekeeping::retiring(const CheckpointStore& store, const std::string& name) const {
  return retiring_.contains({&store, name});
}

bool Housekeeping::removing() const noexcept { return io_ && io_->removals.active() > 0; }

Task<> Housekeeping::join_removals() { co_await io_->removals.join(); }

bool Housekeeping::idle() const noexcept {
  return !io_ || io_->others.active() + io_->removals.active() == 0;
}

Task<> Housekeeping::join() {
  if (!io_) co_return;
  co_await io_->others.join();
  co_await io_->removals.join();
}

}  // namespace millrace
