// Which sample comes when. One process; ranks come with the distributed strategies.
//
// The reference's DefaultSampler: the order of an epoch is a permutation seeded by seed + epoch, so
// any position of any epoch can be found again without replaying what came before. Our generator is
// fixed (not the standard library's distributions), so the order is the same on every platform.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace millrace {

// Fisher-Yates with a fixed generator: the same seed gives the same order everywhere.
void shuffle(std::span<std::int64_t> values, std::uint64_t seed);

class Sampler {
 public:
  Sampler(std::int64_t size, bool shuffle, std::uint64_t seed);

  std::int64_t size() const noexcept { return static_cast<std::int64_t>(order_.size()); }
  std::int64_t epoch() const noexcept { return epoch_; }
  std::uint64_t seed() const noexcept { return seed_; }
  void set_epoch(std::int64_t epoch);  // no work when nothing changes
  void set_seed(std::uint64_t seed);
  // The sample at each position of the current epoch.
  std::span<const std::int64_t> order() const noexcept { return order_; }

 private:
  void reorder();

  std::vector<std::int64_t> order_;
  bool shuffle_;
  std::uint64_t seed_;
  std::int64_t epoch_ = 0;
};

}  // namespace millrace
