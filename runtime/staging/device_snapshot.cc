#include "millrace/runtime/staging/device_snapshot.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>

#include "millrace/io/crc32.h"
#include "millrace/runtime/device/device_error.h"

namespace millrace {

DeviceLane::DeviceLane(DeviceStream& stream)
    : train(stream),
      copies(stream.device().make_stream(StreamPriority::kNormal)),
      captured(stream.device().make_event()) {}

void DeviceSlot::fit(Device& device, const DevicePlan& plan) {
  while (chunks.size() < plan.chunks()) chunks.push_back(device.make_event());
  if (!aside) aside = device.make_event();
  pack.load(plan.pieces());
}

DeviceSnapshot::DeviceSnapshot(std::shared_ptr<const DevicePlan> plan, std::span<std::byte> arena,
                               std::span<std::byte> side, SnapshotOptions options,
                               std::shared_ptr<DeviceLane> lane, DeviceSlot& slot)
    : Snapshot(plan->table(), arena, std::move(options)),
      plan_(std::move(plan)),
      side_(side),
      lane_(std::move(lane)),
      slot_(slot),
      sources_(parts()) {}

void DeviceSnapshot::capture() noexcept {
  try {
    lane_->train.record(*lane_->captured);
    lane_->copies->wait_for(*lane_->captured);
    if (streams()) return copy_aside();
    for (std::size_t i = 0; i < plan_->any_time_chunks() && put_in_next(); ++i) {
    }
    let_train_wait(std::min(plan_->any_time_chunks(), sound_.load()));
    copy_host_storages();
  } catch (const std::exception& error) {
    discard(error.what());
  }
}

void DeviceSnapshot::copy_host_storages() {
  for (std::size_t id = 0; id < slices().size(); ++id) {
    const Slice& slice = slices()[id];
    if (slices().storages()[slice.storage].on_device || !enter()) continue;
    std::memcpy(room(slice).data(), source(slice), slice.size);
    settle(id);
    leave();
  }
}

// Under way until staging's thread has waited for it, whatever fails here.
void DeviceSnapshot::copy_aside() {
  aside_ = enter();
  std::span<std::byte> side = side_;
  for (std::size_t i = 0; i < parts(); ++i) {
    const CapturedStorage& storage = slices().storages()[i];
    if (storage.on_device && storage.mutation != Mutation::kAnyTime) continue;
    const auto to = side.first(storage.bytes.size());
    side = side.subspan(to.size());
    sources_[i] = to.data();
    if (storage.on_device) {
      lane_->copies->copy_to_host(to, storage.bytes.data());
    } else {
      std::copy(storage.bytes.begin(), storage.bytes.end(), to.begin());
    }
  }
  lane_->copies->record(*slot_.aside);
  aside_recorded_ = true;
  lane_->train.wait_for(*slot_.aside);
}

bool DeviceSnapshot::open(std::size_t chunk) const {
  return !ring_ || ring_->open(plan_->file_end(chunk));
}

// A chunk that failed on the way counts as put in, without an event: complete() waits for whatever
// there is of it.
bool DeviceSnapshot::put_in_next() {
  const std::scoped_lock lock(put_in_mutex_);
  const std::size_t chunk = put_in_.load();
  if (chunk == plan_->chunks()) return false;
  {
    const std::scoped_lock state(mutex_);
    if (!open(chunk)) return false;
  }
  if (!enter()) return false;
  try {
    put_in(chunk);
    sound_.store(chunk + 1);
  } catch (const std::exception& error) {
    discard(error.what());
  }
  const std::scoped_lock state(mutex_);
  put_in_.store(chunk + 1);
  changed_.notify_all();
  return true;
}

void DeviceSnapshot::put_in(std::size_t chunk) {
  const DevicePack& pack = plan_->pack(chunk);
  for (const DeviceCopy& copy : plan_->chunk(chunk)) {
    const Slice& first = slices()[copy.first_slice];
    if (options().probe) options().probe(first.storage);
    if (pack.pieces > 0) continue;
    const auto to = arena().subspan(place(first.file_offset), copy.size);
    if (copy.from_side) {
      std::memcpy(to.data(), sources_[first.storage] + first.offset, copy.size);
    } else {
      lane_->copies->copy_to_host(to, source(first));
    }
  }
  if (pack.pieces > 0) put_in_pack(pack);
  lane_->copies->record(*slot_.chunks[chunk]);
}

// The pack before has been copied by then: it was put into the same stream.
void DeviceSnapshot::put_in_pack(const DevicePack& pack) {
  PackBuffers& buffers = slot_.pack;
  buffers.upload(*lane_->copies);
  const std::span<std::byte> packed = buffers.device(pack.size);
  lane_->copies->pack(packed, buffers.table(pack.first_piece, pack.pieces));
  lane_->copies->copy_to_host(buffers.host(pack.at, pack.size), packed.data());
}

// That waiting failed does not mean that the copies are done: then for the whole stream, unless the
// device is lost.
bool DeviceSnapshot::wait_for_copies(const DeviceEvent* behind) noexcept {
  constexpr int kAttempts = 3;
  if (behind != nullptr) {
    try {
      behind->wait();
      return true;
    } catch (const std::exception& error) {
      discard(error.what());
    }
  }
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    try {
      lane_->copies->synchronize();
      break;
    } catch (const DeviceError& error) {
      if (error.sticky()) break;
    } catch (const std::exception&) {
    }
  }
  return false;
}

void DeviceSnapshot::bring_to_places(std::size_t chunk) noexcept {
  const DevicePack& pack = plan_->pack(chunk);
  if (pack.pieces == 0) return;
  const auto packed = slot_.pack.host(pack.at, pack.size);
  for (const DeviceCopy& copy : plan_->chunk(chunk)) {
    const auto from = packed.subspan(copy.packed_at, copy.size);
    std::memcpy(room(slices()[copy.first_slice]).data(), from.data(), from.size());
  }
}

void DeviceSnapshot::complete(std::size_t chunk) noexcept {
  if (wait_for_copies(chunk < sound_.load() ? slot_.chunks[chunk].get() : nullptr)) {
    bring_to_places(chunk);
    for (const DeviceCopy& copy : plan_->chunk(chunk)) {
      for (std::size_t id = copy.first_slice; id < copy.end_slice; ++id) settle(id);
    }
  }
  complete_.store(chunk + 1);
  leave();
}

// Everything that can be put in first, so that the device always has work.
void DeviceSnapshot::copy_unclaimed() {
  if (std::exchange(aside_, false)) {
    wait_for_copies(aside_recorded_ ? slot_.aside.get() : nullptr);
    leave();
  }
  for (;;) {
    if (put_in_next()) continue;
    const std::size_t next = complete_.load();
    if (next < put_in_.load()) {
      complete(next);
      continue;
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] {
      const std::size_t put_in = put_in_.load();
      return next < put_in || discarded() || put_in == plan_->chunks() || open(put_in);
    });
    if (next == put_in_.load() && (discarded() || next == plan_->chunks())) return;
  }
}

void DeviceSnapshot::stage_all() {
  while (put_in_next()) {
  }
  wait_all();
}

void DeviceSnapshot::secure(std::span<const std::byte> memory) {
  ask_watch_in(memory);
  std::size_t end = 0;
  slices().each_in(memory, [&](std::size_t id) {
    if (const std::uint32_t chunk = plan_->chunk_of(id); chunk != DevicePlan::kNone) {
      end = std::max<std::size_t>(end, chunk + 1);
    }
    return true;
  });
  secure_up_to(end);
}

void DeviceSnapshot::secure_all() {
  ask_all();
  secure_up_to(plan_->chunks());
}

void DeviceSnapshot::ask_all() noexcept {
  for (std::size_t i = 0; i < parts(); ++i) ask_watch(i);
}

void DeviceSnapshot::secure_up_to(std::size_t end) {
  if (streams()) {
    wait_for_chunks(end);
  } else {
    while (put_in_.load() < end && put_in_next()) {
    }
  }
  let_train_wait(std::min(end, sound_.load()));
}

// Streaming: staging's thread puts them in, because it may have to wait for the side copies.
void DeviceSnapshot::wait_for_chunks(std::size_t end) {
  std::unique_lock lock(mutex_);
  const auto stuck = [this] { return !has_writer_ && !open(put_in_.load()); };
  const auto there = [&] { return discarded() || put_in_.load() >= end; };
  changed_.wait(lock, [&] { return there() || stuck(); });
  if (there()) return;
  lock.unlock();
  discard_for_want_of_writer();
}

void DeviceSnapshot::let_train_wait(std::size_t end) {
  if (end <= passed_) return;
  // Nobody comes to the gate any more when it is passed, so versions may move from then on.
  if (end == plan_->chunks()) ask_all();
  try {
    lane_->train.wait_for(*slot_.chunks[end - 1]);
  } catch (const std::exception& error) {
    discard(error.what());
  }
  passed_ = end;
}

bool DeviceSnapshot::secured(std::span<const std::byte> memory) const {
  return finished() || slices().each_in(memory, [this](std::size_t id) {
    const std::uint32_t chunk = plan_->chunk_of(id);
    return is_staged(id) || (chunk != DevicePlan::kNone && chunk < passed_);
  });
}

// A device's copies pass no thread that could have summed them.
std::uint32_t DeviceSnapshot::checksum(std::size_t id) const { return crc32(room(slices()[id])); }

bool DeviceSnapshot::passed() const { return finished() || passed_ == plan_->chunks(); }

}  // namespace millrace
