// The copy of a slice into the arena, with streaming stores: written lines go past the cache, which
// saves reading them first (half as fast again as memcpy on the machines measured). The source is
// read as usual and stays in cache, so who is about to write it finds it there. The checksum is
// taken on the way, from pieces in the first-level cache: it costs a third of what it costs to read
// the copy for it later.
//
// Pure, any thread. The copy is complete, also for other threads, when the call returns. Falls back
// to memcpy on processors without SSE2, and under the sanitizers, which do not see such stores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace millrace {

// `to` is at least as large as `from` and does not overlap it. Fast when it starts at a multiple of
// 16, as every storage in a file does. Returns the CRC-32 of what was written, whoever changes the
// source meanwhile.
std::uint32_t copy_streaming(std::span<std::byte> to, std::span<const std::byte> from) noexcept;

}  // namespace millrace
