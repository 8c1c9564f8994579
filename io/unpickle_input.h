// The bytes of a pickle and the place of the operation being read, which every complaint names.
// Little-endian numbers, counted items and lines; nothing is read or promised past the end.
//
// Internal to the unpickler. The views it returns point into the caller's bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "millrace/runtime/async/error.h"

namespace millrace::pickle {

class UnpickleInput {
 public:
  explicit UnpickleInput(std::span<const std::byte> bytes) : bytes_(bytes) {}

  // Takes the next opcode; failures are at its place until the one after it.
  unsigned char opcode() {
    opcode_at_ = at_;
    return static_cast<unsigned char>(take(1).front());
  }
  // The next `size` bytes. Compared with what is left first, so a length never causes an
  // allocation.
  std::string_view take(std::uint64_t size) {
    if (size > left()) fail_short(size);
    const auto* first = reinterpret_cast<const char*>(bytes_.data()) + at_;
    at_ += size;
    return {first, static_cast<std::size_t>(size)};
  }
  std::uint64_t number(int bytes) {
    std::uint64_t value = 0;
    const std::string_view raw = take(static_cast<std::uint64_t>(bytes));
    for (int i = bytes - 1; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(raw[i]);
    return value;
  }
  // A length of so many bytes, and the item it counts.
  std::string_view counted(int bytes) { return take(number(bytes)); }
  // Up to the next line feed, which is taken and not returned.
  std::string_view line();

  std::size_t size() const { return bytes_.size(); }
  std::size_t consumed() const { return at_; }

  // Throw a Fault at the current opcode: the way out of the middle of an operation. It never
  // leaves unpickle(), which returns it.
  [[noreturn]] void fail(Fault::Kind kind, std::string what) const;
  [[noreturn]] void corrupt(std::string what) const;

 private:
  [[noreturn]] void fail_short(std::uint64_t size) const;
  std::size_t left() const { return bytes_.size() - at_; }

  std::span<const std::byte> bytes_;
  std::size_t at_ = 0, opcode_at_ = 0;
};

}  // namespace millrace::pickle
