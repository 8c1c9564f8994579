#include "tests/support/live_state.h"

#include <algorithm>

#include "millrace/io/pickler.h"
#include "millrace/runtime/staging/pth_image.h"
#include "tests/io/support/pth_file.h"
#include "tests/support/images.h"

namespace millrace::test {
namespace {

constexpr std::size_t kGap = 100;

std::vector<std::byte> some_pickle() { return pickle::pickle(pickle::Value::list({"state"})); }
std::vector<PthLayout::NamedBytes> some_extra() { return {{"millrace/state", pattern(77, 9)}}; }

}  // namespace

LiveState::LiveState(const std::vector<std::uint64_t>& sizes, std::uint32_t seed) {
  std::size_t total = kGap;
  for (const std::uint64_t size : sizes) total += size + kGap;
  live = original_ = pattern(total, seed);
  std::size_t at = 0;
  for (const std::uint64_t size : sizes) {
    captured.push_back({.bytes = std::span(live).subspan(at, size)});
    at += size + kGap;
  }
}

LiveState LiveState::random(std::uint32_t seed, std::size_t count) {
  std::mt19937 random(seed);
  std::vector<std::uint64_t> sizes;
  std::vector<std::uint32_t> groups;
  for (std::uint32_t group = 1; sizes.size() < count; ++group) {
    const std::uint64_t most = random() % 3 == 0 ? (1 << 20) : 20'000;
    const std::uint64_t size = random() % 8 == 0 ? 0 : 1 + random() % most;
    const bool grouped = random() % 2 == 0;
    for (int i = grouped ? 3 : 1; i > 0; --i) {
      sizes.push_back(size);
      groups.push_back(grouped ? group : 0);
    }
  }
  LiveState state(sizes, seed);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    state.captured[i].group = groups[i];
    if (random() % 6 == 0) state.captured[i].mutation = Mutation::kAnyTime;
  }
  return state;
}

std::span<std::byte> LiveState::storage(std::size_t i) {
  const auto bytes = captured[i].bytes;
  return std::span(live).subspan(static_cast<std::size_t>(bytes.data() - live.data()),
                                 bytes.size());
}

void LiveState::scribble(std::span<std::byte> memory) {
  for (std::byte& byte : memory) byte = ~byte;
}

std::span<std::byte> LiveState::random_range(std::mt19937& random, std::size_t most) {
  const std::size_t first = random() % live.size();
  const std::size_t count = 1 + random() % std::min(most, live.size() - first);
  return std::span(live).subspan(first, count);
}

std::vector<std::byte> LiveState::expected_file() const {
  std::vector<std::vector<std::byte>> storages;
  for (const CapturedStorage& storage : captured) {
    const auto first = original_.begin() + (storage.bytes.data() - live.data());
    storages.emplace_back(first, first + static_cast<std::ptrdiff_t>(storage.bytes.size()));
  }
  return make_file_of_pickle(some_pickle(), storages, some_extra());
}

std::vector<std::byte> file_of(const std::shared_ptr<Snapshot>& snapshot, std::uint64_t block) {
  PthImage image(snapshot, some_pickle(), some_extra());
  std::vector<std::byte> file;
  file.reserve(image.size());
  const std::uint64_t step = std::min(block, image.window());
  while (file.size() < image.size()) {
    const auto piece =
        image.wait(file.size(), std::min<std::uint64_t>(image.size(), file.size() + step));
    file.insert(file.end(), piece.begin(), piece.end());
  }
  return file;
}

}  // namespace millrace::test
