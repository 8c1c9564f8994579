#include "millrace/runtime/engine/staging.h"

#include <pthread.h>

#include <string>
#include <utility>

#include "millrace/runtime/async/error.h"

namespace millrace {

std::string_view stage_mode_name(StageMode mode) {
  switch (mode) {
    case StageMode::kAuto:
      return "auto";
    case StageMode::kLazy:
      return "lazy";
    case StageMode::kEager:
      return "eager";
    case StageMode::kBlocking:
      return "blocking";
  }
  return "auto";
}

StageMode parse_stage_mode(std::string_view name) {
  for (const StageMode mode :
       {StageMode::kAuto, StageMode::kLazy, StageMode::kEager, StageMode::kBlocking}) {
    if (stage_mode_name(mode) == name) return mode;
  }
  throw ConfigError("checkpoint.mode",
                    "unknown mode '" + std::string(name) + "'; valid: auto, lazy, eager, blocking",
                    nearest_name(name, {"auto", "lazy", "eager", "blocking"}));
}

Staging::Staging(Snapshot::CopyProbe probe)
    : probe_(std::move(probe)),
      copier_([this](const std::stop_token& stop) { copier_loop(stop); }) {
  pthread_setname_np(copier_.native_handle(), "mr-stage");
}

Staging::~Staging() = default;

void Staging::reserve(std::uint64_t storages) { arena_.reserve(storages, kTailRoom); }

std::shared_ptr<Snapshot> Staging::begin(std::vector<CapturedStorage> storages, StageMode mode) {
  gate_.writable_all();  // the last snapshot, should anybody have left it behind
  std::vector<std::uint64_t> sizes;
  std::vector<std::size_t> copy_now;
  for (std::size_t i = 0; i < storages.size(); ++i) {
    sizes.push_back(storages[i].bytes.size());
    if (storages[i].mutation == Mutation::kAnyTime || sizes.back() <= kSmall) copy_now.push_back(i);
  }
  PthLayout layout(sizes);
  reserve(layout.storages_end());
  auto snapshot =
      std::make_shared<Snapshot>(std::move(storages), std::move(layout), arena_.bytes(), probe_);
  if (mode == StageMode::kLazy) {
    for (const std::size_t part : copy_now) snapshot->copy_part(part);
    if (!snapshot->staged()) {
      gate_.close_for(snapshot);
      const std::scoped_lock lock(mutex_);
      next_ = snapshot;
    }
    wake_.notify_one();
  } else {
    snapshot->copy_unclaimed();
  }
  return snapshot;
}

void Staging::copier_loop(const std::stop_token& stop) {
  for (;;) {
    std::shared_ptr<Snapshot> snapshot;
    {
      std::unique_lock lock(mutex_);
      if (!wake_.wait(lock, stop, [this] { return next_ != nullptr; })) return;
      snapshot = std::move(next_);
      next_ = nullptr;
    }
    snapshot->copy_unclaimed();
  }
}

}  // namespace millrace
