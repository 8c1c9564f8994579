// A small training program for tests: started, killed and resumed by others.
//
//   torch_trainer key=value ...
//
//   work_dir=<folder>           required
//   epochs=<n> | iters=<n>      which loop runs, and how far
//   save=epoch | iter           what `interval` counts
//   interval=<n> keep=<n> mode=auto|lazy|eager|blocking
//   optimizer=adamw|amsgrad|sgd|momentum
//   width=<n> dropout=<p> warmup=<iterations> seed=<n>
//   resume=auto|<file>
//   validate=<interval>         accuracy, of which the best is saved; the last and the best are
//                               published at the end
//   io=ask                      one I/O thread; prints `io <thread id>` and waits for a line of
//                               standard input before anything else
//   die=<iter>                  SIGKILLs itself once the checkpoint of that iteration is committed
//   dump=<folder>               raw copies of every captured state and every batch
//
// Each line of standard output is written at once:
//
//   resumed <iter>              the counter after start-up
//   iter <iter> <loss>          after each iteration; the loss as a hexadecimal float
//   captured|committed <generation> <iter> <file>
//   log <line>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <asio/post.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "millrace/events/event_bus.h"
#include "millrace/hooks/default_hooks.h"
#include "millrace/runtime/async/io_pool.h"
#include "millrace/runtime/engine/metric.h"
#include "millrace/runtime/engine/run.h"
#include "millrace/runtime/engine/run_context.h"
#include "millrace/runtime/torch/single_device.h"
#include "tests/torch/support/small_nets.h"

namespace millrace {
namespace {

class Arguments {
 public:
  Arguments(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      const std::string text = argv[i];
      const auto equals = text.find('=');
      values_[text.substr(0, equals)] = text.substr(equals + 1);
    }
  }
  std::string text(const std::string& key, const std::string& fallback = "") const {
    const auto found = values_.find(key);
    return found == values_.end() ? fallback : found->second;
  }
  std::int64_t number(const std::string& key, std::int64_t fallback) const {
    const std::string value = text(key);
    return value.empty() ? fallback : std::stoll(value);
  }

 private:
  std::map<std::string, std::string> values_;
};

void write_line(const std::string& line) {
  const std::string whole = line + "\n";
  const char* next = whole.data();
  std::size_t left = whole.size();
  while (left > 0) {
    const ssize_t count = ::write(STDOUT_FILENO, next, left);
    if (count <= 0) std::_Exit(3);  // the parent is gone
    next += count;
    left -= static_cast<std::size_t>(count);
  }
}

void write_bytes(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  if (!file) throw Error("cannot write " + path);
}

std::string list_text(const std::vector<std::int64_t>& values) {
  std::string text = "[";
  for (const std::int64_t value : values) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(value);
  }
  return text + "]";
}

// Tells the parent what happens, and dumps what is asked for.
class Reporter final : public Hook {
 public:
  explicit Reporter(const Arguments& arguments)
      : die_(arguments.number("die", -1)), dump_(arguments.text("dump")) {}
  std::string_view name() const override { return "Reporter"; }
  Priority priority() const override { return Priority::kLowest; }
  void attach(RunContext& run) override { run_ = &run; }

  void subscribe(Subscriptions& on) override {
    on.every<BeforeTrain>(
        [](const BeforeTrain& e) { write_line("resumed " + std::to_string(e.at.iter)); });
    on.every<AfterTrainIter>(&Reporter::after_iter, this);
    on.every<CheckpointCaptured>(
        [](const CheckpointCaptured& e) { write_line("captured " + text(e.row)); });
    on.every<CheckpointCommitted>(&Reporter::committed, this);
    if (dump_.empty()) return;
    on.every<BeforeTrainIter>(&Reporter::dump_batch, this);
    on.every<BeforeSaveCheckpoint>([this](const BeforeSaveCheckpoint& e) { dump_state(e.at); });
  }

 private:
  static std::string text(const CheckpointRow& row) {
    return std::to_string(row.generation) + " " + std::to_string(row.iter) + " " + row.name;
  }
  void after_iter(const AfterTrainIter& event) {
    char loss[64];
    std::snprintf(loss, sizeof loss, "%a", event.output.scalars[0].try_get().value());
    write_line("iter " + std::to_string(event.at.iter + 1) + " " + loss);
  }
  void committed(const CheckpointCommitted& event) {
    write_line("committed " + text(event.row));
    if (event.row.iter == die_) ::kill(::getpid(), SIGKILL);
  }

  // batch_<iter>_<field>.bin, for the iteration that makes `iter` of them.
  void dump_batch(const BeforeTrainIter& event) const {
    const auto& fields = event.batch.fields();
    for (std::size_t i = 0; i < fields.size(); ++i) {
      write_bytes(
          dump_ + "/batch_" + std::to_string(event.at.iter + 1) + "_" + std::to_string(i) + ".bin",
          fields[i].bytes);
    }
  }
  // state_<n>.json names the tensors of the n-th capture, state_<n>_<storage>.bin has the bytes.
  void dump_state(const Progress&) {
    const CapturedState state = run_->strategy.capture(true);
    const std::string stem = dump_ + "/state_" + std::to_string(++dumps_);
    for (std::size_t i = 0; i < state.storages.size(); ++i) {
      write_bytes(stem + "_" + std::to_string(i) + ".bin", state.storages[i].bytes);
    }
    json_.clear();
    for (const auto& [key, value] : *state.state_dict.as_mapping()) {
      add("model", *key.as_string(), value);
    }
    for (const auto& [index, tensors] : *state.optimizer.find("state")->as_mapping()) {
      for (const auto& [key, value] : *tensors.as_mapping()) {
        add("optimizer", std::to_string(*index.as_int()) + "." + *key.as_string(), value);
      }
    }
    std::ofstream(stem + ".json") << "[\n" << json_ << "\n]\n";
  }
  void add(const std::string& part, const std::string& name, const pickle::Value& value) {
    const auto leaf = pickle::as_tensor(value).value();
    if (!json_.empty()) json_ += ",\n";
    json_ += R"({"part": ")" + part + R"(", "name": ")" + name + R"(", "dtype": ")" +
             std::string(dtype_name(leaf.dtype)) + R"(", "storage": )" + leaf.storage_key +
             R"(, "offset": )" + std::to_string(leaf.offset) + R"(, "sizes": )" +
             list_text(leaf.sizes) + R"(, "strides": )" + list_text(leaf.strides) + "}";
  }

  const std::int64_t die_;
  const std::string dump_;
  RunContext* run_ = nullptr;
  int dumps_ = 0;
  std::string json_;
};

OptimizerFactory optimizer_named(const std::string& name) {
  if (name == "amsgrad") return adamw({.lr = 5e-3, .amsgrad = true});
  if (name == "sgd") return sgd({.lr = 5e-2});
  if (name == "momentum") return sgd({.lr = 5e-2, .momentum = 0.9, .weight_decay = 1e-3});
  return adamw({.lr = 5e-3});
}

RunOptions run_options(const Arguments& arguments) {
  RunOptions options;
  options.work_dir = arguments.text("work_dir");
  options.max_epochs = arguments.number("epochs", 0);
  options.max_iters = arguments.number("iters", 0);
  options.seed = static_cast<std::uint64_t>(arguments.number("seed", 3));
  options.log_console = false;
  options.log_sink = [](LogLevel, std::string_view text) {
    std::string line(text);  // the table of hooks has several
    std::replace(line.begin(), line.end(), '\n', '|');
    write_line("log " + line);
  };
  if (arguments.number("validate", 0) > 0) options.val_interval = arguments.number("validate", 0);
  const std::string resume = arguments.text("resume");
  if (resume == "auto") {
    options.resume = Resume::automatic();
  } else if (!resume.empty()) {
    options.resume = Resume::from(resume);
  }
  return options;
}

Parts make_parts(const Arguments& arguments) {
  set_randomness(static_cast<std::uint64_t>(arguments.number("seed", 3)));
  const test::MixedNetOptions net{.width = arguments.number("width", 64),
                                  .dropout = std::stod(arguments.text("dropout", "0"))};
  Parts parts;
  parts.strategy = make_single_device(test::mixed_net(net),
                                      optimizer_named(arguments.text("optimizer")), {.threads = 1});
  parts.train =
      loader(test::labelled_points(9 * 16 + 5), {.batch_size = 16, .shuffle = true});  // 10 batches
  const std::int64_t warmup = arguments.number("warmup", 0);
  if (warmup > 0) {
    parts.param_schedulers.push_back(
        linear_lr({.start_factor = 0.1, .span = {.begin = 0, .end = warmup, .by_epoch = false}}));
  }
  DefaultHookOptions defaults;
  defaults.logger.interval = 1;
  defaults.checkpoint = {.interval = arguments.number("interval", 1),
                         .by_epoch = arguments.text("save", "epoch") == "epoch",
                         .max_keep_ckpts = arguments.number("keep", -1),
                         .mode = parse_stage_mode(arguments.text("mode", "lazy"))};
  if (arguments.number("validate", 0) > 0) {
    parts.val = loader(test::labelled_points(200, 8), {.batch_size = 100});
    parts.metrics.push_back(std::make_unique<Accuracy>());
    defaults.checkpoint.save_best = {"accuracy"};
    defaults.checkpoint.published_keys = {"state_dict"};
  }
  parts.hooks = default_hooks(std::move(defaults));
  parts.hooks.add(std::make_unique<Reporter>(arguments));
  return parts;
}

// Says which thread does the I/O, and lets the parent do something to it first.
void ask(IoPool& pool) {
  asio::post(pool.executor(), [] { write_line("io " + std::to_string(::gettid())); });
  std::string line;
  std::getline(std::cin, line);
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  const millrace::Arguments arguments(argc, argv);
  try {
    millrace::RunOptions options = millrace::run_options(arguments);
    if (arguments.text("io") != "ask") {
      return millrace::run(std::move(options), millrace::make_parts(arguments));
    }
    millrace::IoPool pool({.threads = 1});
    millrace::ask(pool);
    options.shared_io = &pool;
    return millrace::run(std::move(options), millrace::make_parts(arguments));
  } catch (const std::exception& error) {
    return millrace::report_error(error);
  }
}
