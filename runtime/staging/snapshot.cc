#include "millrace/runtime/staging/snapshot.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <utility>

namespace millrace {

Snapshot::Snapshot(std::shared_ptr<const SliceTable> table, std::span<std::byte> arena,
                   SnapshotOptions options)
    : states_(table->size()),
      table_(std::move(table)),
      arena_(arena),
      options_(std::move(options)),
      unstaged_(parts()),
      asked_(parts()) {
  for (std::size_t i = 0; i < parts(); ++i) {
    const std::size_t slices = table_->first(i + 1) - table_->first(i);
    unstaged_[i].store(static_cast<std::uint32_t>(slices), std::memory_order_relaxed);
  }
  const std::uint64_t block = table_->block_bytes();
  if (block > 0) ring_.emplace(block, arena.size() / block);
  if (ring_ ? ring_->bytes() < 2 * block : arena.size() < layout().storages_end()) {
    throw std::logic_error("Snapshot: the arena is too small");
  }
}

// Counted before looking at discarded_: either abandon() sees this thread, or it sees the mark.
bool Snapshot::enter() noexcept {
  in_flight_.fetch_add(1);
  if (!discarded_.load()) return true;
  leave();
  return false;
}

// The mutex only where somebody may be waiting in abandon().
void Snapshot::leave() noexcept {
  if (in_flight_.fetch_sub(1) > 1 || !discarded_.load()) return;
  const std::scoped_lock lock(mutex_);
  changed_.notify_all();
}

const std::byte* Snapshot::source(const Slice& slice) const {
  const auto& sources = options_.sources;
  const std::byte* const instead = sources.empty() ? nullptr : sources[slice.storage];
  return (instead != nullptr ? instead : table_->storages()[slice.storage].bytes.data()) +
         slice.offset;
}

void Snapshot::settle(std::size_t id) noexcept {
  const std::size_t storage = (*table_)[id].storage;
  const bool last = unstaged_[storage].fetch_sub(1, std::memory_order_acq_rel) == 1;
  // Before the slice counts as staged: from then on a writer may move the storage's version.
  if (last) ask_watch(storage);
  const std::scoped_lock lock(mutex_);
  if (staged_.load(std::memory_order_relaxed) + 1 == table_->size()) {
    staged_at_ = std::chrono::steady_clock::now();  // before a writer can see the last slice
  }
  states_[id].store(kStaged, std::memory_order_release);
  while (ring_ && prefix_ < table_->size() && is_staged(prefix_)) ++prefix_;
  staged_.fetch_add(1, std::memory_order_acq_rel);
  changed_.notify_all();
}

// Whoever comes second waits for the answer, because then the version may move.
void Snapshot::ask_watch(std::size_t storage) noexcept {
  if (options_.watch == nullptr) return;
  if (table_->storages()[storage].mutation != Mutation::kBehindGate) return;
  const std::scoped_lock lock(watch_mutex_);
  if (std::exchange(asked_[storage], 1) == 1) return;
  std::string reason;
  try {
    reason = options_.watch->moved(storage);
  } catch (const std::exception& error) {
    reason = error.what();
  }
  if (!reason.empty()) discard(std::move(reason));
}

void Snapshot::ask_watch_in(std::span<const std::byte> memory) noexcept {
  if (options_.watch == nullptr) return;
  std::size_t asked = parts();
  table_->each_in(memory, [&](std::size_t id) {
    const std::size_t storage = (*table_)[id].storage;
    if (std::exchange(asked, storage) != storage) ask_watch(storage);
    return true;
  });
}

void Snapshot::wait_all() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return finished(); });
}

void Snapshot::discard(std::string reason) noexcept {
  const std::scoped_lock lock(mutex_);
  if (!discarded_.load()) {
    reason_ = std::move(reason);
    discarded_.store(true);
  }
  changed_.notify_all();
}

void Snapshot::discard_for_want_of_writer() {
  discard(
      "the state exceeds the memory budget, and a writer came to the gate before anybody was there "
      "to write the file");
}

void Snapshot::abandon(std::string reason) {
  discard(std::move(reason));
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return in_flight_.load() == 0; });
}

std::string Snapshot::discard_reason() const {
  const std::scoped_lock lock(mutex_);
  return reason_;
}

void Snapshot::throw_if_discarded() const {
  if (discarded()) throw SnapshotDiscarded(discard_reason());
}

std::span<const std::byte> Snapshot::wait_slice(std::size_t id) {
  if (!is_staged(id)) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return is_staged(id) || discarded(); });
  }
  throw_if_discarded();
  return room((*table_)[id]);
}

bool Snapshot::fill(std::uint64_t offset, std::span<const std::byte> bytes) {
  if (!ring_) {
    if (offset > arena_.size() || bytes.size() > arena_.size() - offset) return false;
    std::copy(bytes.begin(), bytes.end(), arena_.begin() + static_cast<std::ptrdiff_t>(offset));
    return true;
  }
  while (!bytes.empty()) {
    const std::uint64_t at = ring_->place(offset);
    const auto part = bytes.first(std::min<std::uint64_t>(bytes.size(), ring_->bytes() - at));
    std::memcpy(arena_.data() + at, part.data(), part.size());
    bytes = bytes.subspan(part.size());
    offset += part.size();
  }
  return true;
}

std::span<const std::byte> Snapshot::piece(std::uint64_t first, std::uint64_t last) const {
  const std::uint64_t end = ring_ ? ring_->bytes() : arena_.size();
  const std::uint64_t at = std::min(place(first), end);
  return arena_.subspan(at, std::min(last - first, end - at));
}

void Snapshot::compare(std::size_t storage, std::uint32_t checksum) {
  if (options_.checksums.empty() || !options_.checksums[storage]) return;
  if (*options_.checksums[storage] == checksum) return;
  discard("storage " + std::to_string(storage) +
          " was written between its capture and its copy by something that did not pass the gate");
}

void Snapshot::attach_writer() {
  const std::scoped_lock lock(mutex_);
  has_writer_ = true;
}

void Snapshot::release(std::uint64_t offset) {
  if (!streams()) return;
  const std::scoped_lock lock(mutex_);
  ring_->release(offset);
  changed_.notify_all();
}

std::chrono::steady_clock::time_point Snapshot::staged_at() const {
  const std::scoped_lock lock(mutex_);
  return staged_at_;
}

}  // namespace millrace
