// Ways in which bytes at rest go bad.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace millrace::test {

using Bytes = std::vector<std::byte>;

struct Damage {
  std::string text;  // "byte 17 is 0x00"
  Bytes bytes;       // of the whole file, afterwards
};
using WithDamage = std::function<void(const Damage&)>;

// Every byte in turn, so many in all, those left out drawn by the seed: one bit of it (drawn
// likewise), or with `all_bits` each bit, all zeros and all ones.
struct Flips {
  std::size_t positions = SIZE_MAX;
  bool all_bits = false;
};
void each_flip(const Bytes& good, Flips flips, std::uint64_t seed, const WithDamage& call);

// The first `n` bytes alone, for every n.
void each_truncation(const Bytes& good, const WithDamage& call);
// A sector of 512 bytes, or a page of 4096, that holds zeros.
void each_zeroed_block(const Bytes& good, const WithDamage& call);
// Bytes behind the end: drawn ones, zeros, and copies of the file's own ones.
void each_garbage_tail(const Bytes& good, std::uint64_t seed, const WithDamage& call);

}  // namespace millrace::test
