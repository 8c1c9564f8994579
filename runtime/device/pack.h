// pack(): many pieces of memory, small ones at best, gathered into one buffer by one launch, so
// that one copy brings them all over. Back comes each by a memcpy of the caller's.
//
//   pieces    [a]   [bb]     [cccccc]        anywhere in the device's memory
//   buffer    a...bb..cccccc                 at `offset` each, in its memory as well
//
// The table of pieces lies in the device's memory, too (DeviceStream::pack). pack_on_host() is the
// twin on the host, which the CPU device runs and which says what the kernel (pack.cu) must do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

namespace millrace {

// Bytes [from, from + size) go to [offset, offset + size) of the buffer. The layout is that of the
// table a kernel reads.
struct PackPiece {
  const std::byte* from = nullptr;
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};
static_assert(std::is_trivially_copyable_v<PackPiece> && sizeof(PackPiece) == 24);

// A piece that starts at a multiple of this, on both sides, is copied so many bytes at a time.
inline constexpr std::uint64_t kPackAlignment = 16;
// The kernel gives each piece to one warp. Pieces of at most this size keep a large one from
// holding the launch up when all others are done.
inline constexpr std::uint64_t kPackPieceBytes = 4096;

constexpr std::uint64_t pack_padded(std::uint64_t size) {
  return (size + kPackAlignment - 1) / kPackAlignment * kPackAlignment;
}
constexpr std::uint64_t pack_pieces(std::uint64_t size) {
  return (size + kPackPieceBytes - 1) / kPackPieceBytes;
}

// Appends `memory`, to be packed at `offset`, in pack_pieces() pieces.
void append_pieces(std::vector<PackPiece>& table, std::span<const std::byte> memory,
                   std::uint64_t offset);

// The pieces overlap neither each other in the buffer nor the buffer itself; their order does not
// matter.
void pack_on_host(std::span<const PackPiece> table, std::byte* to) noexcept;

}  // namespace millrace
