// The gate before every writer of captured state: optimizer step, load, user hooks.
//
//     gate.writable(storage_bytes(parameter));   // now this memory may be changed
//
// storage_bytes(), of a LibTorch tensor, is in runtime/torch/tensor_bytes.h; any span will do.
//
// While a save is being staged, writable() copies the slices of what it covers that nobody has
// claimed yet, and blocks (without a suspension) only for a slice that is being copied; of a state
// that streams through a small arena also for the writer of the file. Of memory on a device it
// makes the train stream wait, and does not wait itself. Without a save in staging it is one load.
// Train context only.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>

namespace millrace {

class Snapshot;  // runtime/staging/snapshot.h

class StateGate {
 public:
  // Returns when every captured byte inside `memory` has been copied, or will be before the train
  // stream goes on, or will not be because its snapshot was discarded. The memory may be of any
  // size and place; what was not captured is writable at once.
  void writable(std::span<const std::byte> memory) {
    if (snapshot_ != nullptr) pass(memory);
  }
  // The same for all captured memory.
  void writable_all() {
    if (snapshot_ != nullptr) pass_all();
  }
  bool open() const noexcept { return snapshot_ == nullptr; }
  // Whether writable(memory) would return at once: nothing in it is still to be copied.
  bool clear(std::span<const std::byte> memory) const;

  // For Staging: later writers wait for this snapshot until it is staged or discarded.
  void close_for(std::shared_ptr<Snapshot> snapshot);
  // For Staging: lets go of a snapshot that nobody has to wait for any more.
  void open_when_passed();

 private:
  void pass(std::span<const std::byte> memory);
  void pass_all();

  std::shared_ptr<Snapshot> snapshot_;
};

}  // namespace millrace
