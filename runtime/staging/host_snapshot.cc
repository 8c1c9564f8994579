#include "millrace/runtime/staging/host_snapshot.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "millrace/runtime/staging/copy_streaming.h"

namespace millrace {

HostSnapshot::HostSnapshot(std::vector<CapturedStorage> storages, const PthLayout& layout,
                           std::span<std::byte> arena, CopyProbe probe)
    : Snapshot(std::make_shared<SliceTable>(std::move(storages)), arena,
               SnapshotOptions{.probe = std::move(probe)}) {
  if (layout.storages_end() != this->layout().storages_end()) {
    throw std::logic_error("Snapshot: the layout is not that of the storages");
  }
}

bool HostSnapshot::claim(std::size_t id) {
  if (states_[id].load(std::memory_order_relaxed) != kUnclaimed || !enter()) return false;
  std::uint8_t expected = kUnclaimed;
  if (states_[id].compare_exchange_strong(expected, kCopying, std::memory_order_acquire)) {
    return true;
  }
  leave();
  return false;
}

bool HostSnapshot::copy_slice(std::size_t id) {
  if (!claim(id)) return false;
  copy_claimed(id);
  return true;
}

bool HostSnapshot::copy_part(std::size_t storage) {
  bool copied = false;
  for (std::size_t id = slices().first(storage); id < slices().first(storage + 1); ++id) {
    copied |= copy_slice(id);
  }
  return copied;
}

void HostSnapshot::copy_claimed(std::size_t id) {
  const Slice& slice = slices()[id];
  if (options().probe) options().probe(slice.storage);
  checksums_[id] = copy_streaming(room(slice), {source(slice), slice.size});
  settle(id);
  leave();
}

void HostSnapshot::copy_unclaimed() {
  if (streams()) return copy_through_ring();
  const auto order = slices().copy_order();
  while (!discarded()) {
    const std::size_t at = cursor_.fetch_add(1, std::memory_order_relaxed);
    if (at >= order.size()) return;
    copy_slice(order[at]);
  }
}

void HostSnapshot::stage_all() {
  copy_unclaimed();
  wait_all();
}

void HostSnapshot::secure(std::span<const std::byte> memory) {
  if (streams()) return secure_up_to(slices().end_in(memory));
  // What nobody claimed first, then the wait for what others are copying.
  slices().each_in(memory, [this](std::size_t id) {
    copy_slice(id);
    return true;
  });
  wait_slices(memory);
  ask_watch_in(memory);
}

void HostSnapshot::wait_slices(std::span<const std::byte> memory) {
  if (secured(memory)) return;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return secured(memory); });
}

bool HostSnapshot::secured(std::span<const std::byte> memory) const {
  return finished() || slices().each_in(memory, [this](std::size_t id) { return is_staged(id); });
}

void HostSnapshot::secure_all() {
  if (streams()) return secure_up_to(slices().size());
  stage_all();
}

// ---- streaming

std::optional<std::size_t> HostSnapshot::claim_next() {
  if (discarded() || next_ == slices().size()) return std::nullopt;
  const Slice& slice = slices()[next_];
  if (!ring_->open(slice.file_offset + slice.size) || !enter()) return std::nullopt;
  states_[next_].store(kCopying, std::memory_order_relaxed);
  return next_++;
}

void HostSnapshot::copy_through_ring() {
  std::unique_lock lock(mutex_);
  while (!discarded() && next_ < slices().size()) {
    const auto id = claim_next();
    if (!id) {
      changed_.wait(lock);
      continue;
    }
    lock.unlock();
    copy_claimed(*id);
    lock.lock();
  }
}

void HostSnapshot::secure_up_to(std::size_t end) {
  std::unique_lock lock(mutex_);
  while (prefix_ < end && !finished()) {
    if (const auto id = claim_next()) {
      lock.unlock();
      copy_claimed(*id);
      lock.lock();
      continue;
    }
    if (next_ < end && !has_writer_ && !discarded()) {
      lock.unlock();
      discard_for_want_of_writer();
      lock.lock();
      continue;
    }
    changed_.wait(lock);
  }
}

}  // namespace millrace
