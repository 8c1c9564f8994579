#include "millrace/runtime/engine/resume.h"

#include <cstdint>
#include <fstream>
#include <optional>
#include <utility>

#include "millrace/events/event_bus.h"
#include "millrace/io/checkpoint_store.h"
#include "millrace/io/record_stream.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_content.h"
#include "millrace/runtime/engine/checkpointer.h"
#include "millrace/runtime/engine/data_loader.h"
#include "millrace/runtime/engine/logger.h"
#include "millrace/runtime/engine/message_hub.h"
#include "millrace/runtime/engine/param_schedule.h"
#include "millrace/runtime/engine/state_sections.h"
#include "millrace/runtime/engine/strategy.h"

namespace millrace {
namespace {

std::int64_t counter(const CheckpointFile& file, const char* key) {
  const pickle::Value* meta = file.root().find("meta");
  const pickle::Value* value = meta != nullptr ? meta->find(key) : nullptr;
  const auto number = value != nullptr ? value->as_int() : std::nullopt;
  if (!number || *number < 0) {
    throw CheckpointError(file.path(),
                          std::string("has no meta['") + key +
                              "']: it cannot be resumed. To start from its weights, use "
                              "load_from");
  }
  return *number;
}

// Hooks may change what was read before anything is loaded from it.
Task<> publish_loaded(CheckpointFile* file, EventBus* bus) {
  CheckpointContent content(*file);
  const std::string path = file->path();
  co_await bus->publish(AfterLoadCheckpoint{path, content});
  file->root() = std::move(content.root());
}

// A section that cannot be decoded is the file's fault, and the error says which file.
template <class Load>
void decode_section(const CheckpointFile& file, const std::string& name, Load load) {
  try {
    load();
  } catch (const std::exception& error) {
    throw CheckpointError(file.path(),
                          "its section '" + name + "' cannot be read: " + error.what());
  }
}

// A position counts batches, so it means nothing for another batch size or another amount of data.
void check_same_data(const CheckpointFile& file, const DataLoader& loader, std::int64_t batches,
                     std::int64_t batch_size) {
  if (loader.batches() == batches && loader.options().batch_size == batch_size) return;
  const auto text = [](std::int64_t count, std::int64_t size) {
    return std::to_string(count) + " batches of " + std::to_string(size);
  };
  throw CheckpointError(file.path(), "was saved by a run whose epoch has " +
                                         text(batches, batch_size) + "; this run's has " +
                                         text(loader.batches(), loader.options().batch_size) +
                                         ". Resume with the same data and batch size, or start "
                                         "from its weights with load_from");
}

void restore_data_position(const CheckpointFile& file, RunContext& run, const Progress& at) {
  if (run.train_loader == nullptr) return;
  LoaderPosition position{at.epoch, 0};
  if (const std::string* bytes = file.section("data")) {
    std::int64_t batches = 0;
    std::int64_t batch_size = 0;
    decode_section(file, "data", [&] {
      RecordReader in(*bytes);
      in(position.epoch, position.batch, batches, batch_size);
    });
    check_same_data(file, *run.train_loader, batches, batch_size);
  } else if (at.by_epoch) {
    // Written by another program: what the counters say, as far as they make sense.
    const std::int64_t batch = at.iter - at.epoch * at.epoch_length;
    if (batch > 0 && batch < at.epoch_length) position.batch = batch;
  }
  try {
    run.train_loader->seek(position);
  } catch (const ConfigError& error) {
    throw CheckpointError(file.path(), error.what());
  }
}

void restore_record(const CheckpointFile& file, RunContext& run, const HookList& hooks) {
  if (!file.record()) {
    run.log.warn(file.path() +
                 " was not written by Millrace: random generators, log history and hook "
                 "states are not in it and start afresh");
    return;
  }
  if (const std::string* rng = file.section("rng")) {
    decode_section(file, "rng", [&] { run.strategy.load_rng(*rng); });
  }
  for (const char* section : {"rng", "hub", "data"}) {
    if (file.section(section) == nullptr) {
      run.log.warn(file.path() + " holds no section '" + section + "': that part starts afresh");
    }
  }
  if (const std::string* hub = file.section("hub")) {
    const auto loaded = run.hub.load_history(*hub);
    if (!loaded) throw CheckpointError(file.path(), "log history: " + loaded.fault().text());
  }
  restore_states(file, run, hooks);
}

void restore_seed(const CheckpointFile& file, RunContext& run) {
  const pickle::Value* meta = file.root().find("meta");
  const pickle::Value* saved = meta != nullptr ? meta->find("seed") : nullptr;
  const auto seed = saved != nullptr ? saved->as_int() : std::nullopt;
  if (!seed) return;
  if (run.seed != static_cast<std::uint64_t>(*seed)) {
    run.log.info("Seed: " + std::to_string(*seed) + ", the resumed run's");
  }
  run.seed = static_cast<std::uint64_t>(*seed);
  for (DataLoader* loader : {run.train_loader, run.val_loader}) {
    if (loader != nullptr && !loader->options().seed) loader->sampler().set_seed(run.seed);
  }
}

void follow_pointer(const std::filesystem::path& work_dir,
                    const std::vector<CheckpointStore*>& stores, FoundCheckpoint& found) {
  std::ifstream pointer(work_dir / CheckpointStore::kPointerName);
  std::string path;
  if (!std::getline(pointer, path)) return;
  for (const CheckpointStore* store : stores) {
    if (path.starts_with(store->location() + "/")) return;  // looked at already
  }
  try {
    found.file = CheckpointFile::read_path(path);
  } catch (const Error& error) {
    found.notes.push_back("Skipped what last_checkpoint names: " + std::string(error.what()));
  }
}

void log_warnings(const LoadReport& report, RunContext& run) {
  for (const std::string& warning : report.warnings) run.log.warn(warning);
}

}  // namespace

FoundCheckpoint find_newest(const std::vector<CheckpointStore*>& stores,
                            const std::filesystem::path& work_dir) {
  FoundCheckpoint found;
  std::uint64_t newest = 0;
  for (CheckpointStore* store : stores) {
    std::optional<CheckpointFile> file;
    const CheckpointStore::Scan scan = store->newest_valid(
        [&](const std::string& name) { file.emplace(CheckpointFile::read(store->data(), name)); });
    for (const auto& skipped : scan.skipped) {
      found.notes.push_back("Skipped " + store->location() + "/" + skipped.name + ": " +
                            skipped.reason);
    }
    if (!scan.found() || (found.file && scan.identity.generation <= newest)) continue;
    found.file = std::move(file);
    newest = scan.identity.generation;
  }
  if (!found.file) follow_pointer(work_dir, stores, found);
  return found;
}

Task<> resume_from(CheckpointFile file, RunContext& run, Progress& at, const HookList& hooks) {
  co_await publish_loaded(&file, &run.bus);
  const std::int64_t epoch = counter(file, "epoch");
  const std::int64_t iter = counter(file, "iter");
  if (file.root().find("optimizer") == nullptr) {
    throw CheckpointError(
        file.path(),
        "holds no optimizer state, so it cannot be resumed exactly. To start from "
        "its weights, use load_from");
  }
  LoadOptions strict;
  log_warnings(run.strategy.load_model(file, strict), run);
  run.strategy.load_optimizer(file);
  at.epoch = epoch;
  at.iter = iter;
  restore_seed(file, run);
  if (const pickle::Value* hub = file.root().find("message_hub")) run.hub.load_python_state(*hub);
  const pickle::Value* schedules = file.root().find("param_schedulers");
  if (schedules != nullptr) {
    run.schedules.load(*schedules, file.path());
  } else if (!run.schedules.empty()) {
    run.log.warn(file.path() + " holds no parameter schedules: they start afresh");
  }
  restore_record(file, run, hooks);
  restore_data_position(file, run, at);
  if (file.record()) run.checkpointer.continue_from(file.record()->identity);
  run.log.info("Resumed from " + file.path() + ", epoch: " + std::to_string(epoch) +
               ", iter: " + std::to_string(iter));
}

Task<> load_weights(CheckpointFile file, RunContext& run) {
  co_await publish_loaded(&file, &run.bus);
  LoadOptions lenient;
  lenient.strict = false;
  log_warnings(run.strategy.load_model(file, lenient), run);
  run.log.info("Loaded the weights of " + file.path());
}

}  // namespace millrace
