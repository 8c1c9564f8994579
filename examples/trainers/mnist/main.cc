// The demo: trains a digit classifier on the CPU and writes durable checkpoints beside the step.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "examples/trainers/mnist/digits.h"
#include "examples/trainers/mnist/net.h"
#include "examples/trainers/mnist/options.h"
#include "millrace/millrace.h"

namespace mr = millrace;

namespace {

// What the last lines say.
class OutcomeHook final : public mr::Hook {
 public:
  std::string_view name() const override { return "OutcomeHook"; }
  void subscribe(mr::Subscriptions& on) override {
    on.every<mr::AfterTrainIter>([this](const mr::AfterTrainIter&) { trained = true; });
    on.every<mr::CheckpointCommitted>([this](const mr::CheckpointCommitted& e) {
      saved_name = e.row.name;
      saved_iter = e.row.iter;
    });
    on.every<mr::AfterValEpoch>([this](const mr::AfterValEpoch& e) {
      accuracy = e.metrics.front().value;
      measured_epoch = e.at.epoch;
    });
  }

  bool trained = false;
  std::string saved_name;
  std::int64_t saved_iter = -1;
  double accuracy = 0;
  std::int64_t measured_epoch = 0;  // 0: not measured
};

// One core is left to the copy and to I/O.
int default_threads() {
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency() - 1));
}

mr::Parts make_parts(const Options& o) {
  const Digits digits = load_digits(o.data, 0.2, o.seed);
  mr::set_randomness(o.seed);
  mr::Parts parts;
  const int threads = o.threads > 0 ? o.threads : default_threads();
  parts.strategy = digit_classifier(o.width, o.lr, {.threads = threads, .device = o.device});
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
  parts.hooks.add(std::make_unique<mr::TimelineHook>());
  parts.hooks.add(std::make_unique<mr::CheckpointReportHook>());
  if (o.device != "cpu") parts.hooks.add(std::make_unique<mr::NvtxHook>());
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

void print_stop(const mr::Runner& runner, const OutcomeHook& outcome) {
  const std::int64_t iter = runner.progress().iter;
  std::string where = "after iteration " + std::to_string(iter);
  std::string saved = outcome.saved_name + " is durable";
  if (iter == 0) where = "before the first iteration";
  if (outcome.saved_iter != iter) saved = "nothing had to be saved";
  std::printf("Stopped by %s %s; %s.\n", runner.stop_reason().c_str(), where.c_str(),
              saved.c_str());
}

void print_outcome(const mr::Runner& runner, const OutcomeHook& outcome, const Options& o) {
  if (runner.stopped()) print_stop(runner, outcome);
  if (outcome.measured_epoch > 0) {
    std::printf("Hold-out accuracy: %.4f, after epoch %lld\n", outcome.accuracy,
                static_cast<long long>(outcome.measured_epoch));
  }
  if (outcome.trained || outcome.measured_epoch > 0) {
    const auto page = std::filesystem::absolute(o.work_dir / "timeline.html").lexically_normal();
    std::printf("Time line: %s (in a browser; trace.json beside it is for Perfetto)\n",
                page.c_str());
  }
  // A complete run has nothing left to do but to train longer.
  const bool complete = runner.progress().epoch >= o.epochs;
  std::printf("To resume: %s\n", resume_command(o, complete ? 2 * o.epochs : o.epochs).c_str());
}

}  // namespace

int main(int argc, char** argv) {
  mr::StopSignals signals;
  try {
    Options options;
    if (const auto code = parse_options(argc, argv, options)) return *code;
    mr::Runner runner(run_options(options), make_parts(options));
    const auto& outcome =
        static_cast<OutcomeHook&>(runner.hooks().add(std::make_unique<OutcomeHook>()));
    mr::run_or_throw(runner, {.signals = &signals});
    print_outcome(runner, outcome, options);
    return 0;
  } catch (const std::exception& error) {
    return mr::report_error(error);
  }
}
