// A gate that is closed by a save which nobody but the gate, and the test, copies.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

#include "millrace/runtime/staging/host_snapshot.h"
#include "millrace/runtime/staging/state_gate.h"

namespace millrace::test {

class ClosedGate {
 public:
  explicit ClosedGate(std::vector<CapturedStorage> storages, Snapshot::CopyProbe probe = {})
      : storages_(std::move(storages)) {
    std::vector<std::uint64_t> sizes;
    for (const CapturedStorage& storage : storages_) {
      sizes.push_back(storage.bytes.size());
      before_.emplace_back(storage.bytes.begin(), storage.bytes.end());
    }
    arena_.resize(PthLayout(sizes).storages_end());
    snapshot_ =
        std::make_shared<HostSnapshot>(storages_, PthLayout(sizes), arena_, std::move(probe));
    gate_.close_for(snapshot_);
  }

  StateGate& gate() { return gate_; }
  void copy(std::size_t storage) { snapshot_->copy_part(storage); }
  void copy_all() { snapshot_->copy_unclaimed(); }

  // Copies what is left; then what was saved must be the state when the gate closed, whoever wrote
  // to it since.
  bool saved_what_was_captured() {
    copy_all();
    for (std::size_t i = 0; i < before_.size(); ++i) {
      const std::byte* const copied = arena_.data() + snapshot_->layout().data_offset(i);
      if (!std::equal(before_[i].begin(), before_[i].end(), copied)) return false;
    }
    return true;
  }

 private:
  std::vector<CapturedStorage> storages_;
  std::vector<std::vector<std::byte>> before_;
  std::vector<std::byte> arena_;
  std::shared_ptr<HostSnapshot> snapshot_;
  StateGate gate_;
};

}  // namespace millrace::test
