#include "millrace/runtime/engine/sampler.h"

#include <numeric>
#include <utility>

namespace millrace {
namespace {

// SplitMix64: tiny, well mixed, and its output is part of our file promise (resume is exact).
class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  // Uniform in [0, bound): rejects the incomplete last range.
  std::uint64_t below(std::uint64_t bound) {
    const std::uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
    std::uint64_t value = next();
    while (value >= limit) value = next();
    return value % bound;
  }

 private:
  std::uint64_t state_;
};

}  // namespace

void shuffle(std::span<std::int64_t> values, std::uint64_t seed) {
  SplitMix64 random(seed);
  for (std::size_t i = values.size(); i > 1; --i) {
    std::swap(values[i - 1], values[random.below(i)]);
  }
}

Sampler::Sampler(std::int64_t size, bool shuffle, std::uint64_t seed)
    : order_(static_cast<std::size_t>(size)), shuffle_(shuffle), seed_(seed) {
  reorder();
}

void Sampler::set_epoch(std::int64_t epoch) {
  if (epoch == epoch_) return;
  epoch_ = epoch;
  reorder();
}

void Sampler::set_seed(std::uint64_t seed) {
  if (seed == seed_) return;
  seed_ = seed;
  reorder();
}

void Sampler::reorder() {
  std::iota(order_.begin(), order_.end(), std::int64_t{0});
  if (shuffle_) shuffle(order_, seed_ + static_cast<std::uint64_t>(epoch_));
}

}  // namespace millrace
