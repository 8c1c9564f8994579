#include "millrace/hooks/logger_hook.h"

#include <string>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/log_processor.h"
#include "millrace/runtime/engine/logger.h"
#include "millrace/runtime/engine/run_context.h"
#include "millrace/runtime/engine/strategy.h"

namespace millrace {

LoggerHook::LoggerHook(LoggerHookOptions options) : options_(options) {
  const auto positive = [](const char* key, std::int64_t value) {
    if (value < 1) {
      throw ConfigError(std::string("LoggerHook.") + key,
                        "must be at least 1, got " + std::to_string(value));
    }
  };
  positive("interval", options.interval);
  positive("interval_exp_name", options.interval_exp_name);
}

void LoggerHook::subscribe(Subscriptions& on) {
  on.every<AfterTrainIter>(&LoggerHook::after_train_iter, this);
  on.every<AfterValIter>(
      [this](const AfterValIter& e) { after_iter(LoopMode::kVal, e.at, e.batch_idx, e.batches); });
  on.every<AfterTestIter>([this](const AfterTestIter& e) {
    after_iter(LoopMode::kTest, e.at, e.batch_idx, e.batches);
  });
  on.every<AfterValEpoch>([this](const AfterValEpoch& e) {
    run_->log.info(run_->log_processor.epoch_line(LoopMode::kVal, e.at, e.batches));
  });
  on.every<AfterTestEpoch>([this](const AfterTestEpoch& e) {
    run_->log.info(run_->log_processor.epoch_line(LoopMode::kTest, e.at, e.batches));
  });
}

void LoggerHook::after_train_iter(const AfterTrainIter& event) {
  const Progress& at = event.at;
  const bool epoch_end = at.by_epoch && event.batch_idx + 1 == at.epoch_length;
  if ((at.iter + 1) % options_.interval_exp_name == 0 || epoch_end) {
    run_->log.info("Exp name: " + run_->run_name);
  }
  const bool whole_interval = (event.batch_idx + 1) % options_.interval == 0;
  const bool short_epoch = at.epoch_length <= options_.interval;
  if (whole_interval || (epoch_end && (!options_.ignore_last || short_epoch))) {
    run_->log.info(
        run_->log_processor.train_line(at, event.batch_idx, run_->strategy.peak_memory_mib()));
  }
}

void LoggerHook::after_iter(LoopMode mode, const Progress& at, std::int64_t batch_idx,
                            std::int64_t batches) {
  if ((batch_idx + 1) % options_.interval == 0) {
    run_->log.info(run_->log_processor.iter_line(mode, at, batch_idx, batches));
  }
}

}  // namespace millrace
