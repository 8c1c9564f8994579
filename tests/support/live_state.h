// Live memory that is captured and then written, and what the file must hold: the bytes at capture.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "millrace/runtime/staging/snapshot.h"

namespace millrace::test {

class LiveState {
 public:
  // Storages of these sizes in one buffer, with gaps of 100 bytes between them.
  explicit LiveState(const std::vector<std::uint64_t>& sizes, std::uint32_t seed = 1);
  // `count` storages, empty to a MiB, most of them small; some in groups, some of any time.
  static LiveState random(std::uint32_t seed, std::size_t count = 12);

  std::vector<std::byte> live;
  std::vector<CapturedStorage> captured;

  std::span<std::byte> storage(std::size_t i);
  // Every byte becomes another one.
  static void scribble(std::span<std::byte> memory);
  // A random range of the live memory, of at most `most` bytes.
  std::span<std::byte> random_range(std::mt19937& random, std::size_t most = 300'000);

  // The file of the state as it was when this was made, put together without the code under test.
  std::vector<std::byte> expected_file() const;

 private:
  std::vector<std::byte> original_;
};

// What a storage would write: the pieces that the image gives out, in order, each of at most
// `block` bytes.
std::vector<std::byte> file_of(const std::shared_ptr<Snapshot>& snapshot,
                               std::uint64_t block = std::uint64_t{8} << 20);

// A watch that says what a test told it.
class ScriptedWatch final : public CaptureWatch {
 public:
  explicit ScriptedWatch(std::function<std::string(std::size_t)> moved)
      : moved_(std::move(moved)) {}
  std::string moved(std::size_t i) const override { return moved_(i); }

 private:
  std::function<std::string(std::size_t)> moved_;
};

}  // namespace millrace::test
