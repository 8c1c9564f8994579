// DigestImage: an image whose bytes are made, hashed and written at the same time, each by a thread
// of its own, so that the whole takes about as long as the slowest of the three.
//
//   producer thread   fills block k + 1
//   hash thread       SHA-256 of block k
//   the caller        hands block k to the storage that asks for it
//
// Four blocks of the size that the storage asks for, in a ring: one is filled again once it was
// both hashed and written. Both threads take over the priority of the thread that asks for the
// first block, start with it, and end with close(), which must be called before destruction.
//
// The storage asks for the blocks in order, each once, all of one size but the last.
#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>

#include "millrace/io/page_buffer.h"
#include "millrace/io/storage.h"

namespace millrace {

class DigestImage final : public FileImage {
 public:
  // Where the producer puts the bytes, from the first to the last. Its calls block while the ring
  // is full, and throw when the image was stopped or closed; let that pass.
  class Sink {
   public:
    // Room for the next bytes, at least one and at most `most`; to be filled before the next call.
    std::span<std::byte> room(std::uint64_t most);
    void put(std::span<const std::byte> bytes);

   private:
    friend class DigestImage;
    explicit Sink(DigestImage& image) : image_(image) {}
    DigestImage& image_;
    std::span<std::byte> left_;  // of the block being filled
    bool filling_ = false;
  };
  // Runs on the producer thread and makes exactly `size` bytes. What it throws, wait() throws.
  using Produce = std::function<void(Sink&)>;

  // `name` is for the Error that wait() and digest() throw once `stop` was requested.
  DigestImage(std::string name, std::uint64_t size, Produce produce, std::stop_token stop);
  ~DigestImage() override;
  DigestImage(const DigestImage&) = delete;
  DigestImage& operator=(const DigestImage&) = delete;

  std::uint64_t size() const override { return size_; }
  std::span<const std::byte> wait(std::uint64_t first, std::uint64_t last) override;

  // SHA-256 of all bytes, in hex. Blocks until the last one is hashed; it must have been asked for.
  std::string digest();

  // Ends both threads, whatever they are doing, and joins them.
  void close() noexcept;

 private:
  static constexpr std::size_t kBlocks = 4;

  void start(std::uint64_t block_bytes);
  void produce_all();
  void hash_all();
  std::span<std::byte> next_block();
  std::span<std::byte> block(std::uint64_t index);
  void block_filled();
  void fail(std::exception_ptr failure);
  void throw_if_ended() const;

  const std::string name_;
  const std::uint64_t size_;
  const Produce produce_;
  const std::stop_token stop_;

  std::uint64_t block_bytes_ = 0, blocks_ = 0;  // set before the threads start
  std::array<PageBuffer, kBlocks> ring_;
  std::thread producer_, hasher_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::uint64_t filled_ = 0, hashed_ = 0, asked_ = 0;  // blocks
  std::string digest_;
  std::exception_ptr failure_;  // the first
  bool produced_ = false;       // the producer returned
  bool closed_ = false;

  using OnStop = std::function<void()>;
  std::optional<std::stop_callback<OnStop>> on_stop_;
};

}  // namespace millrace
