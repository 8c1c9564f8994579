#include "tests/hooks/checkpoint_scenario.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <ostream>

#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/hooks/param_scheduler_hook.h"
#include "millrace/io/local_storage.h"
#include "millrace/io/pickler.h"
#include "millrace/runtime/engine/param_schedule.h"
#include "millrace/runtime/staging/pth_image.h"
#include "millrace/runtime/staging/staging.h"
#include "tests/hooks/reference_model.h"
#include "tests/support/images.h"
#include "tests/support/scripted_metric.h"

namespace millrace::test {
namespace {

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

std::string entry_text(const pickle::Value& value) {
  if (const std::string* text = value.as_string()) return base_name(*text);
  if (const auto* items = value.as_sequence()) {
    std::string text;
    for (const pickle::Value& item : *items) {
      text += (text.empty() ? "" : ",") + std::to_string(item.as_int().value_or(-1));
    }
    return "[" + text + "]";
  }
  char number[32];
  std::snprintf(number, sizeof number, "%.4f", value.as_double().value_or(-1));
  return number;
}

std::string joined(std::vector<std::string> words) {
  std::sort(words.begin(), words.end());
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::string counter_text(const pickle::Value& root, const char* key) {
  const pickle::Value* meta = root.find("meta");
  const pickle::Value* value = meta != nullptr ? meta->find(key) : nullptr;
  return value != nullptr ? std::to_string(value->as_int().value_or(-1)) : "none";
}

}  // namespace

std::string test_name(const RowName& name) {
  std::string text = std::string(name.section) + "_" + name.what;
  for (char& c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return text;
}

void PrintTo(const RowName& name, std::ostream* out) { *out << name.section << " " << name.what; }

std::unique_ptr<FakeRun> Folder::make(const Scenario& scenario, Resume resume) {
  auto run = std::make_unique<FakeRun>(work_dir(), FakeStrategyOptions{.floats = 300});
  run->options.max_epochs = scenario.epochs;
  run->options.max_iters = scenario.iters;
  run->options.resume = std::move(resume);
  run->parts.param_schedulers.push_back(linear_lr({}));
  run->parts.hooks.add(std::make_unique<ParamSchedulerHook>());
  if (!scenario.scores.empty()) {
    run->options.val_begin = scenario.val_begin;
    run->options.val_interval = scenario.val_interval;
    run->parts.val = loader(fake_dataset(4), {.batch_size = 2});
    for (const auto& [metric, all] : scenario.scores) {
      std::vector<double> values = all;
      const auto done = static_cast<std::ptrdiff_t>(validations_ % values.size());
      std::rotate(values.begin(), values.begin() + done, values.end());
      run->parts.metrics.push_back(std::make_unique<ScriptedMetric>(metric, values));
    }
    run->parts.hooks.add(on_event<AfterValEpoch>(
        [this](const AfterValEpoch&, RunContext&) { ++validations_; }, "Counts"));
  }
  if (scenario.stop_after > 0) {
    run->parts.hooks.add(on_event<BeforeOptimizerStep>(
        [last = scenario.stop_after](const BeforeOptimizerStep& e, RunContext& context) {
          if (e.at.iter + 1 == last) context.request_stop("test");
        },
        "Stops"));
  }
  run->parts.hooks.add(std::make_unique<CheckpointHook>(scenario.hook));
  return run;
}

std::unique_ptr<FakeRun> Folder::train(const Scenario& scenario, Resume resume) {
  auto run = make(scenario, std::move(resume));
  error_.clear();
  try {
    run->train();
  } catch (const std::exception& error) {
    error_ = error.what();
  }
  return run;
}

std::vector<std::string> Folder::files(const std::filesystem::path& directory) const {
  std::vector<std::string> names;
  for (const std::string& name :
       names_of(LocalStorage(directory.empty() ? work_dir() : directory))) {
    if (name.ends_with(".pth")) names.push_back(without_hash(name));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string Folder::pointer_text() const {
  return read_text(LocalStorage(work_dir()), "last_checkpoint");
}

std::string Folder::pointer() const { return base_name(pointer_text()); }

CheckpointFile Folder::read(const std::string& file) const {
  const LocalStorage storage(work_dir());
  std::string name = file;
  for (const std::string& found : names_of(storage)) {
    if (without_hash(found) == file) name = found;
  }
  return CheckpointFile::read(storage, name);
}

std::string Folder::content(const std::string& file) const {
  const CheckpointFile found = read(file);
  std::vector<std::string> keys;
  for (const auto& [key, value] : *found.root().as_mapping()) keys.push_back(*key.as_string());
  return "epoch " + counter_text(found.root(), "epoch") + " iter " +
         counter_text(found.root(), "iter") + ": " + joined(std::move(keys));
}

std::string Folder::hub_in(const std::string& file) const {
  return hub_text(*read(file).root().find("message_hub"));
}

void Folder::write_foreign(const std::filesystem::path& file, std::int64_t epoch, std::int64_t iter,
                           const pickle::Value& runtime_info) const {
  const bool best = file.filename().string().starts_with("best_");
  FakeStrategy model({.floats = 300});
  CapturedState state = model.capture(!best);
  pickle::Value meta = pickle::Value::dict();
  meta.set("epoch", epoch);
  meta.set("iter", iter);
  pickle::Value hub = pickle::Value::dict();
  hub.set("runtime_info", runtime_info);
  pickle::Value root = pickle::Value::dict();
  root.set("meta", std::move(meta));
  root.set("state_dict", state.state_dict);
  if (!best) root.set("optimizer", state.optimizer);
  root.set("message_hub", std::move(hub));
  Staging staging;
  PthImage image(staging.begin(state.storages, StageMode::kBlocking), pickle::pickle(root), {});
  LocalStorage storage((dir_.path() / file).parent_path());
  storage.prepare();
  storage.commit(file.filename().string(), image);
}

std::string hub_text(const pickle::Value& python_state) {
  const pickle::Value* info = python_state.find("runtime_info");
  std::vector<std::string> entries;
  for (const auto& [key, value] : *info->as_mapping()) {
    const std::string& name = *key.as_string();
    if (name.starts_with("best_") || name == "last_ckpt" || name == "keep_ckpt_ids") {
      entries.push_back(name + "=" + entry_text(value));
    }
  }
  return joined(std::move(entries));
}

}  // namespace millrace::test
