// Staging: copies captured state out of live memory while training goes on. One per runner; owns
// the arena, the copier thread and the gate.
//
// begin() and gate() belong to the train context. One snapshot at a time uses the arena: the caller
// waits for the save before it begins the next.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "millrace/runtime/engine/arena.h"
#include "millrace/runtime/engine/snapshot.h"
#include "millrace/runtime/engine/state_gate.h"

namespace millrace {

// When the copy happens. kAuto: eager where the step's threads take every core, else lazy.
enum class StageMode : std::uint8_t { kAuto, kLazy, kEager, kBlocking };

std::string_view stage_mode_name(StageMode mode);
StageMode parse_stage_mode(std::string_view name);  // throws ConfigError with the nearest name

class Staging {
 public:
  // `probe` is for tests: see Snapshot::CopyProbe.
  explicit Staging(Snapshot::CopyProbe probe = {});
  ~Staging();  // joins the copier, which is idle once every save has been awaited
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // Before training: makes room for states of `storages` bytes, so that the first save costs no
  // more than later ones.
  void reserve(std::uint64_t storages);

  // Starts copying, `mode` being any but kAuto. Returns at once in lazy mode, after the copy in
  // eager and blocking mode; storages that may change at any time are copied before it returns in
  // every mode. The live memory must stay valid until the snapshot is staged.
  std::shared_ptr<Snapshot> begin(std::vector<CapturedStorage> storages, StageMode mode);

  StateGate& gate() noexcept { return gate_; }

  // Room behind the storages for pickle, record and directory.
  static constexpr std::uint64_t kTailRoom = std::uint64_t{256} << 20;
  // Storages up to this size are copied at capture: cheaper than waking anybody.
  static constexpr std::uint64_t kSmall = 16 << 10;

 private:
  void copier_loop(const std::stop_token& stop);

  Arena arena_;
  StateGate gate_;
  Snapshot::CopyProbe probe_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::shared_ptr<Snapshot> next_;  // guarded by mutex_
  std::jthread copier_;             // last member: starts when the rest exists
};

}  // namespace millrace
