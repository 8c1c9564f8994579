#include "millrace/hooks/span_file_hook.h"

#include <cerrno>
#include <fstream>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/logger.h"
#include "millrace/runtime/engine/run_context.h"

namespace millrace {

void SpanFileHook::attach(RunContext& run) {
  run_ = &run;
  if (file_.is_relative()) file_ = run.work_dir / file_;
}

void SpanFileHook::subscribe(Subscriptions& on) {
  recorder_.subscribe(on, run_->strategy);
  on.every<AfterRun>([this](const AfterRun&) { write(); });
}

void SpanFileHook::write() const {
  if (!recorder_.anything_ran()) return;
  std::ofstream out(file_, std::ios::trunc);
  draw(out, recorder_, run_->run_name);
  out.close();
  if (!out) run_->log.warn(StorageError("write " + what_, file_.string(), errno).what());
  const std::string shortened = recorder_.shortened();
  if (!shortened.empty()) run_->log.info(file_.filename().string() + " " + shortened);
}

}  // namespace millrace
