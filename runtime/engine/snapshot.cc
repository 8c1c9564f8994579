#include "millrace/runtime/engine/snapshot.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "millrace/io/crc32.h"
#include "millrace/runtime/engine/state_gate.h"

namespace millrace {

Snapshot::Snapshot(std::vector<CapturedStorage> storages, PthLayout layout,
                   std::span<std::byte> arena, CopyProbe probe)
    : storages_(std::move(storages)),
      layout_(std::move(layout)),
      arena_(arena),
      probe_(std::move(probe)),
      states_(storages_.size()),
      crcs_(storages_.size()) {
  for (std::size_t i = 0; i < storages_.size(); ++i) {
    const auto bytes = storages_[i].bytes;
    if (!bytes.empty()) by_address_.push_back({bytes.data(), bytes.data() + bytes.size(), i});
  }
  std::sort(by_address_.begin(), by_address_.end(),
            [](const LiveRange& a, const LiveRange& b) { return a.first < b.first; });
}

bool Snapshot::copy_part(std::size_t i) {
  std::uint8_t expected = kUnclaimed;
  if (!states_[i].compare_exchange_strong(expected, kCopying, std::memory_order_acquire)) {
    return false;
  }
  if (probe_) probe_(i);
  const auto target = arena_.subspan(layout_.data_offset(i), layout_.data_size(i));
  crcs_[i] = copy_with_crc(target, storages_[i].bytes);
  const std::uint64_t header = layout_.header_offset(i);
  layout_.write_header(i, crcs_[i], arena_.subspan(header, layout_.data_offset(i) - header));
  {
    const std::scoped_lock lock(mutex_);
    states_[i].store(kStaged, std::memory_order_release);
    if (staged_.fetch_add(1, std::memory_order_acq_rel) + 1 == parts()) {
      staged_at_ = std::chrono::steady_clock::now();
    }
  }
  changed_.notify_all();
  return true;
}

void Snapshot::copy_unclaimed() {
  for (std::size_t i = 0; i < parts(); ++i) copy_part(i);
}

void Snapshot::wait_part(std::size_t i) {
  if (states_[i].load(std::memory_order_acquire) == kStaged) return;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return states_[i].load(std::memory_order_acquire) == kStaged; });
}

void Snapshot::wait_all() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return staged(); });
}

void Snapshot::secure(std::span<const std::byte> memory) {
  if (memory.empty()) return;
  const std::byte* const last = memory.data() + memory.size();
  auto range = std::upper_bound(
      by_address_.begin(), by_address_.end(), memory.data(),
      [](const std::byte* address, const LiveRange& r) { return address < r.last; });
  for (; range != by_address_.end() && range->first < last; ++range) {
    if (!copy_part(range->part)) wait_part(range->part);
  }
}

void Snapshot::secure_all() {
  copy_unclaimed();
  wait_all();
}

std::span<const std::byte> Snapshot::wait_bytes(std::uint64_t first, std::uint64_t last) {
  for (std::size_t i = 0; i < parts(); ++i) {
    const bool before = layout_.data_offset(i) + layout_.data_size(i) <= first;
    if (before && layout_.data_size(i) > 0) continue;
    if (layout_.header_offset(i) >= last) break;
    wait_part(i);
  }
  return arena_.subspan(first, last - first);
}

std::chrono::steady_clock::time_point Snapshot::staged_at() const {
  const std::scoped_lock lock(mutex_);
  return staged_at_;
}

void StateGate::close_for(std::shared_ptr<Snapshot> snapshot) { snapshot_ = std::move(snapshot); }

void StateGate::pass(std::span<const std::byte> memory) {
  const auto start = std::chrono::steady_clock::now();
  snapshot_->secure(memory);
  snapshot_->add_gate_time(std::chrono::steady_clock::now() - start);
  open_when_staged();
}

void StateGate::pass_all() {
  const auto start = std::chrono::steady_clock::now();
  snapshot_->secure_all();
  snapshot_->add_gate_time(std::chrono::steady_clock::now() - start);
  open_when_staged();
}

void StateGate::open_when_staged() {
  if (snapshot_->staged()) snapshot_.reset();
}

}  // namespace millrace
