#include "millrace/runtime/device/pack.h"

#include <algorithm>
#include <cstring>

namespace millrace {

void append_pieces(std::vector<PackPiece>& table, std::span<const std::byte> memory,
                   std::uint64_t offset) {
  while (!memory.empty()) {
    const auto piece = memory.first(std::min<std::uint64_t>(memory.size(), kPackPieceBytes));
    table.push_back({piece.data(), offset, piece.size()});
    memory = memory.subspan(piece.size());
    offset += piece.size();
  }
}

void pack_on_host(std::span<const PackPiece> table, std::byte* to) noexcept {
  for (const PackPiece& piece : table) {
    if (piece.size > 0) std::memcpy(to + piece.offset, piece.from, piece.size);
  }
}

}  // namespace millrace
