// What every pack() must do: cases that run on the host twin, on the CPU device, on the fake of the
// CUDA runtime and on a GPU.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "millrace/runtime/device/device.h"
#include "millrace/runtime/device/pack.h"
#include "millrace/runtime/device/pinned_buffer.h"

namespace millrace::test {

struct PackCase {
  struct Piece {
    std::uint64_t at, offset, size;  // in `source`, in the buffer
  };
  std::string name;
  std::vector<std::byte> source;
  std::uint64_t buffer = 64;  // bytes
  std::vector<Piece> pieces = {};

  static constexpr std::byte kUntouched{0xEE};

  // The next place in the buffer, `gap` bytes behind the last piece.
  void add(std::uint64_t at, std::uint64_t size, std::uint64_t gap) {
    const std::uint64_t offset = pieces.empty() ? 0 : pieces.back().offset + pieces.back().size;
    pieces.push_back({at, offset + gap, size});
    buffer = std::max(buffer, offset + gap + size + 64);
  }
  std::vector<PackPiece> table(const std::byte* source_memory) const {
    std::vector<PackPiece> made;
    for (const Piece& piece : pieces) {
      made.push_back({source_memory + piece.at, piece.offset, piece.size});
    }
    return made;
  }
  // Byte by byte, the others as they were.
  std::vector<std::byte> expected() const {
    std::vector<std::byte> bytes(buffer, kUntouched);
    for (const Piece& piece : pieces) {
      for (std::uint64_t i = 0; i < piece.size; ++i) bytes[piece.offset + i] = source[piece.at + i];
    }
    return bytes;
  }
};

inline std::vector<std::byte> pack_source(std::size_t size) {
  std::vector<std::byte> bytes(size);
  std::uint32_t state = 1;
  for (std::byte& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<std::byte>(state >> 24);
  }
  return bytes;
}

// 10,000 of 40 bytes and one of 64 KiB in the middle, cut as append_pieces() does, or not.
inline PackCase one_large_among_many_small(bool cut) {
  constexpr std::uint64_t kLarge = 64 << 10, kSmall = 40, kMany = 10'000;
  PackCase made{std::string("one large among many small") + (cut ? ", cut" : ""),
                pack_source(kLarge + kMany * kSmall)};
  for (std::uint64_t i = 0; i < kMany; ++i) {
    made.add(kLarge + i * kSmall, kSmall, i % 2 * 8);
    if (i != kMany / 2) continue;
    const std::uint64_t step = cut ? kPackPieceBytes : kLarge;
    for (std::uint64_t at = 0; at < kLarge; at += step) made.add(at, step, 0);
  }
  return made;
}

inline std::vector<PackCase> pack_cases() {
  std::vector<PackCase> cases{{"nothing", pack_source(16)}};
  for (const std::uint64_t size : {0, 1, 15, 16, 17, 4096, 4097, 65536}) {
    PackCase made{std::to_string(size) + " bytes", pack_source(size + 32)};
    // Both sides aligned, one of them, neither, and both alike but not to 16.
    for (const std::uint64_t at : {0, 1, 8, 15, 16}) {
      for (const std::uint64_t to : {0, 1, 8, 15}) {
        const std::uint64_t end =
            made.pieces.empty() ? 0 : made.pieces.back().offset + made.pieces.back().size;
        made.add(at, size, pack_padded(end) + to - end);
      }
    }
    cases.push_back(std::move(made));
  }
  PackCase close{"without gaps", pack_source(5000)};
  for (std::uint64_t size = 0; size < 90; ++size) close.add(size * 16, size, 0);
  cases.push_back(std::move(close));
  cases.push_back(one_large_among_many_small(false));
  cases.push_back(one_large_among_many_small(true));
  return cases;
}

// Pinned memory with these bytes. On pages of its own: no other pin reaches them.
struct PinnedBytes {
  PinnedBytes(Device& device, std::span<const std::byte> content) : buffer(device) {
    buffer.reserve(content.size());
    bytes = buffer.bytes().first(content.size());
    std::ranges::copy(content, bytes.begin());
  }
  std::vector<std::byte> content() const { return {bytes.begin(), bytes.end()}; }

  PinnedBuffer buffer;
  std::span<std::byte> bytes;
};

// The buffer after the case ran on the device.
inline std::vector<std::byte> packed_on(Device& device, const PackCase& each) {
  const auto stream = device.make_stream(StreamPriority::kNormal);
  const auto source = device.allocate(each.source.size());
  const auto buffer = device.allocate(each.buffer);
  const auto pieces = each.table(source->data());
  const auto table = device.allocate(std::max<std::uint64_t>(1, pieces.size()) * sizeof(PackPiece));
  const auto table_bytes = std::as_bytes(std::span(pieces));
  const PinnedBytes from(device, each.source);
  const PinnedBytes list(device, table_bytes);
  PinnedBytes out(device, std::vector<std::byte>(each.buffer, PackCase::kUntouched));
  stream->copy_to_device(source->data(), from.bytes);
  stream->copy_to_device(buffer->data(), out.bytes);
  if (!pieces.empty()) stream->copy_to_device(table->data(), list.bytes);
  stream->synchronize();
  stream->pack(buffer->bytes(), {reinterpret_cast<const PackPiece*>(table->data()), pieces.size()});
  stream->copy_to_host(out.bytes, buffer->data());
  stream->synchronize();
  return out.content();
}

}  // namespace millrace::test
