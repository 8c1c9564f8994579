// CRC-32 as zip uses it (reflected 0xEDB88320). Pure functions, callable from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace millrace {

// The checksum of `bytes`; `seed` is that of what comes before them, so that
// crc32(b, crc32(a)) == crc32(a + b).
std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t seed = 0);

// The checksum of a + b from those of a and b, without the bytes: parts may be summed in any order.
std::uint32_t crc32_combine(std::uint32_t first, std::uint32_t second, std::uint64_t second_size);

// Copies `from` to `to` (at least as large, not overlapping) and returns the checksum of what was
// copied. Works in pieces that stay in cache, so memory is read once.
std::uint32_t copy_with_crc(std::span<std::byte> to, std::span<const std::byte> from,
                            std::uint32_t seed = 0);

}  // namespace millrace
