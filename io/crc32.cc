#include "millrace/io/crc32.h"

#include <isa-l/crc.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>

namespace millrace {

std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t seed) {
  if (bytes.empty()) return seed;
  return crc32_gzip_refl(seed, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}

std::uint32_t crc32_combine(std::uint32_t first, std::uint32_t second, std::uint64_t second_size) {
  return static_cast<std::uint32_t>(
      ::crc32_combine(first, second, static_cast<z_off_t>(second_size)));
}

std::uint32_t copy_with_crc(std::span<std::byte> to, std::span<const std::byte> from,
                            std::uint32_t seed) {
  constexpr std::size_t kPiece = std::size_t{256} * 1024;
  for (std::size_t done = 0; done < from.size();) {
    const std::size_t n = std::min(kPiece, from.size() - done);
    std::memcpy(to.data() + done, from.data() + done, n);
    // The checksum is that of the copy: a source that changes meanwhile cannot make them disagree.
    seed = crc32(to.subspan(done, n), seed);
    done += n;
  }
  return seed;
}

}  // namespace millrace
