// Seeded damage to bytes: flips, telling values, cuts, insertions, copies, runs of ones.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <random>
#include <utility>
#include <vector>

namespace millrace::test {

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  // One to four changes.
  std::vector<std::byte> mutate(std::vector<std::byte> bytes) {
    for (std::size_t count = 1 + below(4); count > 0; --count) once(bytes);
    return bytes;
  }

 private:
  std::size_t below(std::size_t bound) { return bound == 0 ? 0 : random_() % bound; }

  void once(std::vector<std::byte>& bytes) {
    if (bytes.empty()) return;
    const std::size_t at = below(bytes.size());
    const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    static constexpr unsigned char kTelling[] = {0, 1, 0x7f, 0x80, 0xff, '(', 't', 'R', 'h', 'q'};
    switch (below(6)) {
      case 0:
        *place ^= static_cast<std::byte>(1 << below(8));
        break;
      case 1:
        *place = static_cast<std::byte>(kTelling[below(std::size(kTelling))]);
        break;
      case 2:
        bytes.erase(
            place, place + static_cast<std::ptrdiff_t>(std::min(1 + below(16), bytes.size() - at)));
        break;
      case 3:
        bytes.insert(place, 1 + below(16), static_cast<std::byte>(random_()));
        break;
      case 4: {
        const std::size_t from = below(bytes.size());
        const std::size_t size = std::min(1 + below(64), bytes.size() - std::max(at, from));
        for (std::size_t i = 0; i < size; ++i) bytes[at + i] = bytes[from + i];
        break;
      }
      default:
        for (std::size_t i = at; i < std::min(at + 4, bytes.size()); ++i) {
          bytes[i] = std::byte{0xff};
        }
    }
  }

  std::mt19937_64 random_;
};

}  // namespace millrace::test
