// What a fuzz target asks of a decoder, beside that it does not crash.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>

namespace millrace::fuzz {

// Ends the process, as a crash does: the input is then kept.
inline void invariant(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: broken: %s\n", what);
  std::abort();
}

inline std::span<const std::byte> bytes_of(const std::uint8_t* data, std::size_t size) {
  return std::as_bytes(std::span(data, size));
}

// A place in `size` bytes, another one for other inputs.
inline std::size_t place_in(std::span<const std::byte> bytes, std::size_t size) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const std::byte byte : bytes) {
    hash = (hash ^ std::to_integer<std::uint64_t>(byte)) * 0x100000001b3;
  }
  return size == 0 ? 0 : static_cast<std::size_t>((hash ^ hash >> 32) % size);
}

}  // namespace millrace::fuzz

// The entry of every target, called by libFuzzer or by replay.cc. Returns 0.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
