#include "millrace/hooks/runtime_info_hook.h"

#include "millrace/runtime/engine/message_hub.h"
#include "millrace/runtime/engine/run_context.h"
#include "millrace/runtime/engine/strategy.h"
#include "millrace/runtime/engine/version.h"

namespace millrace {

void RuntimeInfoHook::attach(RunContext& run) {
  run_ = &run;
  lr_ = &run.hub.scalar("train/lr");
}

void RuntimeInfoHook::subscribe(Subscriptions& on) {
  on.every<BeforeRun>(&RuntimeInfoHook::before_run, this);
  on.every<BeforeTrain>(&RuntimeInfoHook::before_train, this);
  on.every<BeforeTrainEpoch>(
      [this](const BeforeTrainEpoch& e) { run_->hub.info("epoch") = e.at.epoch; });
  on.every<BeforeTrainIter>(&RuntimeInfoHook::before_train_iter, this);
  on.every<AfterTrainIter>(&RuntimeInfoHook::after_train_iter, this);
  on.every<AfterTrain>([this](const AfterTrain&) { leave(); });
  on.every<AfterRun>([this](const AfterRun& e) { run_->hub.take_arrived(e.at.iter - 1); });
  on.every<BeforeVal>([this](const BeforeVal&) { enter(LoopMode::kVal); });
  on.every<AfterVal>([this](const AfterVal&) { leave(); });
  on.every<AfterValEpoch>(
      [this](const AfterValEpoch& e) { write_metrics(LoopMode::kVal, e.metrics); });
  on.every<BeforeTest>([this](const BeforeTest&) { enter(LoopMode::kTest); });
  on.every<AfterTest>([this](const AfterTest&) { leave(); });
  on.every<AfterTestEpoch>(
      [this](const AfterTestEpoch& e) { write_metrics(LoopMode::kTest, e.metrics); });
}

void RuntimeInfoHook::before_run(const BeforeRun&) {
  MessageHub& hub = run_->hub;
  hub.info("cfg") = run_->config_text;
  hub.info("seed") = static_cast<std::int64_t>(run_->seed);
  hub.info("experiment_name") = run_->run_name;
  hub.info("millrace_version") = kVersion;
}

void RuntimeInfoHook::before_train(const BeforeTrain& event) {
  MessageHub& hub = run_->hub;
  enter(LoopMode::kTrain);
  hub.info("epoch") = event.at.epoch;
  hub.info("iter") = event.at.iter;
  hub.info("max_epochs") = event.at.max_epochs;
  hub.info("max_iters") = event.at.max_iters;
}

void RuntimeInfoHook::before_train_iter(const BeforeTrainIter& event) {
  run_->hub.info("iter") = event.at.iter;
  const auto rates = run_->strategy.learning_rates();
  if (!rates.empty()) lr_->update(rates.front());
}

void RuntimeInfoHook::after_train_iter(const AfterTrainIter& event) {
  const auto scalars = event.output.scalars;
  for (std::size_t i = 0; i < scalars.size(); ++i) {
    if (i == outputs_.size()) outputs_.emplace_back();
    Output& output = outputs_[i];
    if (output.name != scalars[i].name) {
      output.name = scalars[i].name;
      output.history = &run_->hub.scalar("train/" + output.name);
    }
    run_->hub.expect(*output.history, scalars[i], event.at.iter);
  }
  run_->hub.take_arrived(event.at.iter);
}

void RuntimeInfoHook::write_metrics(LoopMode mode, std::span<const MetricValue> metrics) {
  const std::string prefix = std::string(loop_mode_name(mode)) + "/";
  for (const MetricValue& metric : metrics) {
    run_->hub.scalar(prefix + metric.name).update(metric.value);
  }
}

void RuntimeInfoHook::enter(LoopMode mode) {
  stages_.emplace_back(loop_mode_name(mode));
  run_->hub.info("loop_stage") = stages_.back();
}

void RuntimeInfoHook::leave() {
  if (!stages_.empty()) stages_.pop_back();
  if (stages_.empty()) {
    run_->hub.pop_info("loop_stage");
  } else {
    run_->hub.info("loop_stage") = stages_.back();
  }
}

}  // namespace millrace
