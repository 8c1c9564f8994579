#include "millrace/runtime/staging/state_gate.h"

#include <utility>

#include "millrace/runtime/staging/snapshot.h"

namespace millrace {

bool StateGate::clear(std::span<const std::byte> memory) const {
  return snapshot_ == nullptr || snapshot_->secured(memory);
}

void StateGate::close_for(std::shared_ptr<Snapshot> snapshot) { snapshot_ = std::move(snapshot); }

void StateGate::pass(std::span<const std::byte> memory) {
  const auto start = std::chrono::steady_clock::now();
  snapshot_->secure(memory);
  snapshot_->add_gate_time(std::chrono::steady_clock::now() - start);
  open_when_passed();
}

void StateGate::pass_all() {
  const auto start = std::chrono::steady_clock::now();
  snapshot_->secure_all();
  snapshot_->add_gate_time(std::chrono::steady_clock::now() - start);
  open_when_passed();
}

void StateGate::open_when_passed() {
  if (snapshot_ != nullptr && snapshot_->passed()) snapshot_.reset();
}

}  // namespace millrace
