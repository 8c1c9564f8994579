#include "millrace/hooks/progress_hook.h"

#include <algorithm>
#include <string>

#include "millrace/runtime/engine/logger.h"
#include "millrace/runtime/engine/run_context.h"

namespace millrace {
namespace {
constexpr std::int64_t kWidth = 40;
constexpr std::chrono::milliseconds kPeriod{100};
}  // namespace

void ProgressHook::subscribe(Subscriptions& on) {
  if (!run_->log.has_terminal()) return;
  BackgroundOptions newest;
  newest.capacity = 4;
  newest.overflow = Overflow::kDropOldest;
  on.background<AfterTrainIter>(newest, [this](const AfterTrainIter::Owned& e) { draw(e); });
  on.every<BeforeTrain>([this](const BeforeTrain&) { end(false); });
  on.every<AfterRun>([this](const AfterRun&) { end(true); });
}

void ProgressHook::end(bool ended) {
  const std::scoped_lock lock(mutex_);
  ended_ = ended;
  if (ended) run_->log.set_status("");
}

void ProgressHook::draw(const AfterTrainIter::Owned& event) {
  const std::scoped_lock lock(mutex_);
  if (ended_) return;
  const auto now = std::chrono::steady_clock::now();
  const std::int64_t done = event.at.iter + 1;
  const std::int64_t total = std::max<std::int64_t>(event.at.max_iters, 1);
  if (done == total) {
    run_->log.set_status("");
    return;
  }
  if (now - drawn_ < kPeriod) return;
  drawn_ = now;
  const std::int64_t filled = std::min(kWidth, kWidth * done / total);
  std::string bar(static_cast<std::size_t>(filled), '#');
  bar.resize(kWidth, '.');
  run_->log.set_status("[" + bar + "] " + std::to_string(done) + "/" + std::to_string(total) +
                       " iterations");
}

}  // namespace millrace
