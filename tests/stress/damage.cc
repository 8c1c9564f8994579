#include "tests/stress/damage.h"

#include <algorithm>
#include <cstdio>
#include <random>

namespace millrace::test {
namespace {

std::string hex(std::byte value) {
  char text[8];
  std::snprintf(text, sizeof text, "0x%02x", std::to_integer<unsigned>(value));
  return text;
}

std::vector<std::size_t> positions_of(std::size_t size, std::size_t count,
                                      std::mt19937_64& random) {
  std::vector<std::size_t> positions(size);
  for (std::size_t i = 0; i < size; ++i) positions[i] = i;
  if (count >= size) return positions;
  std::shuffle(positions.begin(), positions.end(), random);
  positions.resize(count);
  std::sort(positions.begin(), positions.end());
  return positions;
}

}  // namespace

void each_flip(const Bytes& good, Flips flips, std::uint64_t seed, const WithDamage& call) {
  std::mt19937_64 random(seed);
  Damage damage;
  damage.bytes = good;
  for (const std::size_t at : positions_of(good.size(), flips.positions, random)) {
    std::vector<std::byte> values = {good[at] ^ std::byte{1} << static_cast<int>(random() % 8)};
    if (flips.all_bits) {
      values = {std::byte{0}, std::byte{0xff}};
      for (int bit = 0; bit < 8; ++bit) values.push_back(good[at] ^ std::byte{1} << bit);
    }
    for (const std::byte value : values) {
      if (value == good[at]) continue;
      damage.text =
          "byte " + std::to_string(at) + " is " + hex(value) + " and was " + hex(good[at]);
      damage.bytes[at] = value;
      call(damage);
    }
    damage.bytes[at] = good[at];
  }
}

void each_truncation(const Bytes& good, const WithDamage& call) {
  for (std::size_t size = 0; size < good.size(); ++size) {
    call({"cut to " + std::to_string(size) + " bytes",
          Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size))});
  }
}

void each_zeroed_block(const Bytes& good, const WithDamage& call) {
  for (const std::size_t block : {512, 4096}) {
    for (std::size_t at = 0; at < good.size(); at += block) {
      Damage damage{"zeros at " + std::to_string(at) + "+" + std::to_string(block), good};
      const std::size_t end = std::min(good.size(), at + block);
      std::fill(damage.bytes.begin() + static_cast<std::ptrdiff_t>(at),
                damage.bytes.begin() + static_cast<std::ptrdiff_t>(end), std::byte{0});
      if (damage.bytes != good) call(damage);
    }
  }
}

void each_garbage_tail(const Bytes& good, std::uint64_t seed, const WithDamage& call) {
  std::mt19937_64 random(seed);
  const auto with_tail = [&](const std::string& text, const Bytes& tail) {
    Damage damage{std::to_string(tail.size()) + " bytes behind the end, " + text, good};
    damage.bytes.insert(damage.bytes.end(), tail.begin(), tail.end());
    call(damage);
  };
  for (std::size_t size = 1; size <= 128; ++size) {
    Bytes drawn(size);
    for (std::byte& byte : drawn) byte = static_cast<std::byte>(random());
    with_tail("drawn", drawn);
    with_tail("zeros", Bytes(size));
    const std::size_t own = std::min(size, good.size());
    with_tail("its own last ones",
              Bytes(good.end() - static_cast<std::ptrdiff_t>(own), good.end()));
  }
  with_tail("zeros", Bytes(4096));
  with_tail("the file again", good);
}

}  // namespace millrace::test
