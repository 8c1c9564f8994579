#include "millrace/io/digest_image.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "millrace/io/sha256.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/async/thread_name.h"

namespace millrace {

std::span<std::byte> DigestImage::Sink::room(std::uint64_t most) {
  if (left_.empty()) {
    if (std::exchange(filling_, true)) image_.block_filled();
    left_ = image_.next_block();
  }
  const auto given = left_.first(std::min<std::uint64_t>(most, left_.size()));
  left_ = left_.subspan(given.size());
  return given;
}

void DigestImage::Sink::put(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto given = room(bytes.size());
    std::memcpy(given.data(), bytes.data(), given.size());
    bytes = bytes.subspan(given.size());
  }
}

DigestImage::DigestImage(std::string name, std::uint64_t size, Produce produce,
                         std::stop_token stop)
    : name_(std::move(name)), size_(size), produce_(std::move(produce)), stop_(std::move(stop)) {
  on_stop_.emplace(stop_, [this] {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  });
}

// Threads that close() has not joined end the process here, as std::thread does it.
DigestImage::~DigestImage() = default;

void DigestImage::start(std::uint64_t block_bytes) {
  block_bytes_ = block_bytes;
  blocks_ = (size_ + block_bytes - 1) / block_bytes;
  producer_ = std::thread([this] {
    name_this_thread("mr-produce");
    produce_all();
  });
  hasher_ = std::thread([this] {
    name_this_thread("mr-hash");
    hash_all();
  });
}

std::span<const std::byte> DigestImage::wait(std::uint64_t first, std::uint64_t last) {
  if (blocks_ == 0) start(last);
  std::unique_lock lock(mutex_);
  if (first != asked_ * block_bytes_ || last != std::min(size_, first + block_bytes_)) {
    throw std::logic_error("DigestImage: asked for another block than the next one");
  }
  const std::uint64_t index = asked_;
  // The block before is written: the producer may have it once it is hashed.
  ++asked_;
  changed_.notify_all();
  changed_.wait(lock, [&] { return filled_ > index || failure_ || stop_.stop_requested(); });
  throw_if_ended();
  return block(index);
}

std::string DigestImage::digest() {
  if (size_ == 0) return sha256_hex({});
  std::unique_lock lock(mutex_);
  if (asked_ != blocks_) throw std::logic_error("DigestImage: asked before the last block was");
  changed_.wait(
      lock, [&] { return (produced_ && !digest_.empty()) || failure_ || stop_.stop_requested(); });
  throw_if_ended();
  return digest_;
}

void DigestImage::close() noexcept {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }
  if (producer_.joinable()) producer_.join();
  if (hasher_.joinable()) hasher_.join();
}

void DigestImage::throw_if_ended() const {
  if (failure_) std::rethrow_exception(failure_);
  if (closed_ || stop_.stop_requested()) {
    throw Error(name_ + ": stopped on request; nothing is left of it");
  }
}

void DigestImage::fail(std::exception_ptr failure) {
  const std::lock_guard lock(mutex_);
  if (!failure_) failure_ = std::move(failure);
  changed_.notify_all();
}

std::span<std::byte> DigestImage::block(std::uint64_t index) {
  const std::uint64_t bytes = std::min(block_bytes_, size_ - index * block_bytes_);
  return ring_.at(index % kBlocks).take(bytes);
}

void DigestImage::produce_all() {
  try {
    Sink sink(*this);
    produce_(sink);
    const bool whole = sink.filling_ && sink.left_.empty();
    if (whole) block_filled();
    const std::lock_guard lock(mutex_);
    if (!whole || filled_ != blocks_) {
      throw std::logic_error("DigestImage: fewer bytes were made than were said");
    }
    produced_ = true;
    changed_.notify_all();
  } catch (...) {
    fail(std::current_exception());
  }
}

void DigestImage::block_filled() {
  const std::lock_guard lock(mutex_);
  ++filled_;
  changed_.notify_all();
}

std::span<std::byte> DigestImage::next_block() {
  std::unique_lock lock(mutex_);
  const std::uint64_t index = filled_;
  if (index == blocks_) throw std::logic_error("DigestImage: more bytes were made than were said");
  changed_.wait(lock, [&] {
    const std::uint64_t written = asked_ > 0 ? asked_ - 1 : 0;
    return index < std::min(hashed_, written) + kBlocks || failure_ || closed_ ||
           stop_.stop_requested();
  });
  throw_if_ended();
  lock.unlock();
  return block(index);
}

void DigestImage::hash_all() {
  try {
    Sha256 sha;
    for (std::uint64_t index = 0; index < blocks_; ++index) {
      std::unique_lock lock(mutex_);
      changed_.wait(
          lock, [&] { return filled_ > index || failure_ || closed_ || stop_.stop_requested(); });
      throw_if_ended();
      lock.unlock();
      sha.add(block(index));
      lock.lock();
      ++hashed_;
      changed_.notify_all();
    }
    const std::lock_guard lock(mutex_);
    digest_ = sha.hex();
    changed_.notify_all();
  } catch (...) {
    fail(std::current_exception());
  }
}

}  // namespace millrace
