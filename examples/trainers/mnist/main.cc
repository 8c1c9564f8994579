// The demo: trains a digit classifier on the CPU and writes durable checkpoints beside the step.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "examples/trainers/mnist/digits.h"
#include "examples/trainers/mnist/net.h"
#include "millrace/millrace.h"

namespace mr = millrace;

namespace {

struct Options {
  std::filesystem::path work_dir = "work/mnist";
  std::filesystem::path data;
  std::int64_t epochs = 10;
  std::int64_t batch_size = 64;
  std::int64_t width = 5632;
  double lr = 1e-3;
  std::int64_t save_interval = 25;
  std::string mode = "auto";
  std::int64_t keep = 3;
  bool resume = false;
  std::string resume_from;
  std::uint64_t seed = 1;
  int threads = 0;
  std::string device = "cpu";
};

std::filesystem::path default_data() {
  const char* folder = std::getenv("MILLRACE_DATA");
  return std::filesystem::path(folder != nullptr ? folder : ".") / "mnist_5k.csv.gz";
}

// One core is left to the copy and to I/O.
int default_threads() {
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency() - 1));
}

void add_options(CLI::App& app, Options& o) {
  app.add_option("--work-dir", o.work_dir, "where checkpoints, log and trace go")
      ->capture_default_str();
  app.add_option("--data", o.data, "mnist_5k.csv.gz; default: in $MILLRACE_DATA");
  app.add_option("--epochs", o.epochs, "passes over the training digits")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--batch-size", o.batch_size, "digits per step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--width", o.width, "neurons of the wide layer; sets the checkpoint's size")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--lr", o.lr, "AdamW's learning rate, after a warm-up of 50 steps")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--save-interval", o.save_interval, "iterations between checkpoints")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--mode", o.mode, "how state is copied: auto, lazy, eager or blocking")
      ->check(CLI::IsMember({"auto", "lazy", "eager", "blocking"}))
      ->capture_default_str();
  app.add_option("--keep", o.keep, "newest checkpoints that are kept; -1 keeps all")
      ->capture_default_str();
  auto* resume = app.add_flag("--resume", o.resume, "continue from the newest valid checkpoint");
  app.add_option("--resume-from", o.resume_from, "continue from this checkpoint")->excludes(resume);
  app.add_option("--seed", o.seed, "of weights, shuffling, dropout and the hold-out split")
      ->capture_default_str();
  app.add_option("--threads", o.threads, "LibTorch's threads; 0: all cores but one")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--device", o.device, "cpu")->capture_default_str();
}

void check_device(const std::string& device) {
  if (device == "cpu") return;
  if (device == "cuda") {
    throw mr::ConfigError("--device", "this build has no CUDA support; use --device cpu");
  }
  throw mr::ConfigError("--device", "unknown device '" + device + "'; valid: cpu",
                        mr::nearest_name(device, {"cpu", "cuda"}));
}

mr::Parts make_parts(const Options& o) {
  const Digits digits = load_digits(o.data.empty() ? default_data() : o.data, 0.2, o.seed);
  mr::set_randomness(o.seed);
  mr::Parts parts;
  parts.strategy = digit_classifier(o.width, o.lr, o.threads > 0 ? o.threads : default_threads());
  parts.train = mr::loader(digits.train, {.batch_size = o.batch_size, .shuffle = true});
  parts.val = mr::loader(digits.holdout, {.batch_size = 250});
  parts.metrics.push_back(std::make_unique<mr::Accuracy>());
  parts.param_schedulers.push_back(
      mr::linear_lr({.start_factor = 0.1, .span = {.begin = 0, .end = 50, .by_epoch = false}}));

  mr::DefaultHookOptions defaults;
  defaults.checkpoint = {.interval = o.save_interval,
                         .by_epoch = false,
                         .max_keep_ckpts = o.keep,
                         .mode = mr::parse_stage_mode(o.mode)};
  parts.hooks = mr::default_hooks(std::move(defaults));
  parts.hooks.add(std::make_unique<mr::ProgressHook>());
  parts.hooks.add(std::make_unique<mr::TraceHook>());
  parts.hooks.add(std::make_unique<mr::CheckpointReportHook>());
  return parts;
}

mr::RunOptions run_options(const Options& o) {
  mr::RunOptions options;
  options.work_dir = o.work_dir;
  options.max_epochs = o.epochs;
  options.seed = o.seed;
  if (o.resume) options.resume = mr::Resume::automatic();
  if (!o.resume_from.empty()) options.resume = mr::Resume::from(o.resume_from);
  return options;
}

void print_outcome(const mr::Runner& runner, const Options& o, const std::string& program) {
  const std::string where = std::filesystem::absolute(o.work_dir).lexically_normal().string();
  if (runner.stopped()) {
    std::printf("Stopped by %s after iteration %lld; its checkpoint is durable.\n",
                runner.stop_reason().c_str(), static_cast<long long>(runner.progress().iter));
  }
  std::printf("Time line: %s/trace.json (open it in Perfetto or chrome://tracing)\n",
              where.c_str());
  std::printf("To resume: %s --work-dir %s --resume --epochs %lld\n", program.c_str(),
              where.c_str(), static_cast<long long>(o.epochs));
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Trains a digit classifier while writing durable checkpoints beside the step");
  add_options(app, options);
  CLI11_PARSE(app, argc, argv);
  try {
    check_device(options.device);
    mr::Runner runner(run_options(options), make_parts(options));
    mr::run_or_throw(runner);
    print_outcome(runner, options, argv[0]);
    return 0;
  } catch (const std::exception& error) {
    return mr::report_error(error);
  }
}
