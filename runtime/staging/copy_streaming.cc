#include "millrace/runtime/staging/copy_streaming.h"

#include <algorithm>
#include <cstring>

#include "millrace/io/crc32.h"

#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define MILLRACE_STREAMING_STORES 1
#include <emmintrin.h>
#else
#define MILLRACE_STREAMING_STORES 0
#endif

namespace millrace {
namespace {

// Below this, waking the write-combining buffers costs more than it saves.
constexpr std::size_t kLeast = 4096;
constexpr std::size_t kLine = 64;
constexpr std::size_t kPiece = 4096;

#if MILLRACE_STREAMING_STORES
// Whole lines, `to` aligned to 16. Wider registers were slower here, not faster.
void stream_lines(std::byte* to, const std::byte* from, std::size_t lines) noexcept {
  for (; lines > 0; --lines, to += kLine, from += kLine) {
    const auto* source = reinterpret_cast<const __m128i*>(from);
    auto* target = reinterpret_cast<__m128i*>(to);
    const __m128i a = _mm_loadu_si128(source), b = _mm_loadu_si128(source + 1);
    const __m128i c = _mm_loadu_si128(source + 2), d = _mm_loadu_si128(source + 3);
    _mm_stream_si128(target, a);
    _mm_stream_si128(target + 1, b);
    _mm_stream_si128(target + 2, c);
    _mm_stream_si128(target + 3, d);
  }
}
#endif

}  // namespace

std::uint32_t copy_streaming(std::span<std::byte> to, std::span<const std::byte> from) noexcept {
  std::uint32_t checksum = 0;
#if MILLRACE_STREAMING_STORES
  if (from.size() >= kLeast && reinterpret_cast<std::uintptr_t>(to.data()) % 16 == 0) {
    alignas(kLine) std::byte piece[kPiece];
    while (from.size() >= kLine) {
      const std::size_t size = std::min(kPiece, from.size() / kLine * kLine);
      std::memcpy(piece, from.data(), size);
      checksum = crc32({piece, size}, checksum);
      stream_lines(to.data(), piece, size / kLine);
      to = to.subspan(size);
      from = from.subspan(size);
    }
    // Streaming stores are ordered by nothing else: without it a later flag could be seen first.
    _mm_sfence();
  }
#endif
  if (from.empty()) return checksum;
  std::memcpy(to.data(), from.data(), from.size());
  return crc32(to.first(from.size()), checksum);
}

}  // namespace millrace
