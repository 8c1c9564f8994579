// The gate before every writer of captured state: optimizer step, load, user hooks.
//
//     gate.writable(bytes_of(parameter));   // now this memory may be changed
//
// While a save is being staged, writable() copies what it covers and nobody has claimed yet, and
// blocks (without a suspension) only for a part the copier is inside of. Without a save in staging
// it is one load. Train context only.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>

namespace millrace {

class Snapshot;  // runtime/engine/snapshot.h

class StateGate {
 public:
  // Returns when every captured byte inside `memory` has been copied. The memory may be of any size
  // and place; what was not captured is writable at once.
  void writable(std::span<const std::byte> memory) {
    if (snapshot_ != nullptr) pass(memory);
  }
  // The same for all captured memory.
  void writable_all() {
    if (snapshot_ != nullptr) pass_all();
  }
  bool open() const noexcept { return snapshot_ == nullptr; }

  // For Staging: later writers wait for this snapshot until it is staged.
  void close_for(std::shared_ptr<Snapshot> snapshot);

 private:
  void pass(std::span<const std::byte> memory);
  void pass_all();
  void open_when_staged();

  std::shared_ptr<Snapshot> snapshot_;
};

}  // namespace millrace
