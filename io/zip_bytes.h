// A cursor over little-endian bytes that a zip reader has in memory. Every read checks what is
// left.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace millrace::zip {

class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::size_t left() const noexcept { return bytes_.size(); }
  // False once a read went past the end; what it returned is zeros.
  bool ok() const noexcept { return ok_; }

  std::uint64_t number(std::size_t bytes) {
    std::uint64_t value = 0;
    const auto raw = take(bytes);
    for (std::size_t i = raw.size(); i > 0; --i) {
      value = value << 8 | std::to_integer<std::uint64_t>(raw[i - 1]);
    }
    return value;
  }
  std::uint16_t u16() { return static_cast<std::uint16_t>(number(2)); }
  std::uint32_t u32() { return static_cast<std::uint32_t>(number(4)); }
  std::uint64_t u64() { return number(8); }

  std::span<const std::byte> take(std::size_t size) {
    if (size > bytes_.size()) {
      ok_ = false;
      size = 0;
    }
    const auto taken = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return taken;
  }

 private:
  std::span<const std::byte> bytes_;
  bool ok_ = true;
};

// The content of the ZIP64 extra field (id 1), empty when there is none, or nothing when the extra
// fields are malformed or it occurs twice.
std::optional<std::span<const std::byte>> find_extra64(std::span<const std::byte> extra);

}  // namespace millrace::zip
