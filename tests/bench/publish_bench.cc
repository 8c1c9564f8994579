// Publishing against what it cannot be faster than: hashing, reading or writing the same bytes.
//
//   publish_bench [raw.json] [sizes in MiB, default 64,256] [rounds, default 5]
//
// A file holds weights, which are published, and an optimizer state of twice their size, which is
// not. Every round does each of these once, in an order that rotates: publish; SHA-256 of the
// published bytes in memory; reading them from the file with a cold cache; committing them to a
// storage; reading and committing at once, which is what one disk allows. The first ratio is that
// of the round's publish to the largest of hash, read and write, the second to the largest of hash
// and the two at once. Committing again is the noise floor.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <sstream>
#include <thread>

#include "millrace/io/local_storage.h"
#include "millrace/io/pth_reader.h"
#include "millrace/io/publish.h"
#include "millrace/io/sha256.h"
#include "tests/bench/pth_source.h"
#include "tests/bench/results.h"

namespace millrace {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr int kActions = 6, kAtOnce = 5;

template <class Work>
double milliseconds(Work work) {
  const auto start = SteadyClock::now();
  work();
  return std::chrono::duration<double, std::milli>(SteadyClock::now() - start).count();
}

void read_in_blocks(const StoredObject& object) {
  std::vector<std::byte> block(std::size_t{8} << 20);
  for (std::uint64_t at = 0; at < object.size(); at += block.size()) {
    object.read(at,
                std::span(block).first(std::min<std::uint64_t>(block.size(), object.size() - at)));
  }
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void measure(std::size_t mib, int rounds, bench::Results& results) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("millrace-publish-" + std::to_string(::getpid()));
  LocalStorage storage(folder);
  storage.prepare();
  bench::write_source(storage, "epoch_1.pth", mib);
  const std::vector<std::string> keys = {"meta", "state_dict"};
  const std::string name = publish_checkpoint(storage, "epoch_1.pth", keys).name;
  std::vector<std::byte> bytes(storage.open(name)->size());
  storage.open(name)->read(0, bytes);

  std::vector<double> ratios, to_disk, noise, rows[kActions];
  for (int round = 0; round < rounds; ++round) {
    double ms[kActions] = {};
    for (int turn = 0; turn < kActions; ++turn) {
      const int what = (turn + round) % kActions;
      bench::drop_cache(folder / "epoch_1.pth");
      bench::drop_cache(folder / name);
      // The trim that follows a removal belongs to nobody's turn.
      storage.retire("copy.pth");
      ::sync();
      BytesImage image(bytes);
      ms[what] = milliseconds([&] {
        if (what == 0) publish_checkpoint(storage, "epoch_1.pth", keys);
        if (what == 1) sha256_hex(bytes);
        if (what == 2) read_in_blocks(*storage.open(name));
        std::jthread reader;
        if (what == kAtOnce) reader = std::jthread([&] { read_in_blocks(*storage.open(name)); });
        if (what >= 3) storage.commit("copy.pth", image);
      });
      rows[what].push_back(ms[what]);
    }
    ratios.push_back(ms[0] / std::max({ms[1], ms[2], ms[3]}));
    to_disk.push_back(ms[0] / std::max(ms[1], ms[kAtOnce]));
    noise.push_back(ms[4] / ms[3]);
    std::ostringstream text;
    text << "{\"mib\":" << mib << ",\"publish_ms\":" << ms[0] << ",\"hash_ms\":" << ms[1]
         << ",\"read_ms\":" << ms[2] << ",\"write_ms\":" << ms[3] << ",\"again_ms\":" << ms[4]
         << ",\"at_once_ms\":" << ms[kAtOnce] << "}";
    results.sample(text.str());
  }
  std::printf("| %zu | %.0f | %.0f | %.0f | %.0f | %.0f | %.2f (%.2f to %.2f) | %.2f | %.2f |\n",
              mib, median(rows[0]), median(rows[1]), median(rows[2]), median(rows[3]),
              median(rows[kAtOnce]), median(ratios),
              *std::min_element(ratios.begin(), ratios.end()),
              *std::max_element(ratios.begin(), ratios.end()), median(to_disk), median(noise));
  std::fflush(stdout);
  const auto add = [&](const std::vector<double>& values, std::string base,
                       std::optional<double> goal) {
    results.add({.item = "11",
                 .what = "publish",
                 .contender = "Millrace",
                 .setting = std::to_string(mib) + " MiB published",
                 .value = bench::spread(values),
                 .base = std::move(base),
                 .noise = bench::spread(noise),
                 .goal = goal});
  };
  add(ratios, "the largest of hash, read, write", 1.15);
  add(to_disk, "the larger of hash, read and write at once", {});
  if (!PthReader::open(storage.open(name)).value().verify()) {
    throw std::runtime_error(name + " does not verify");
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  using millrace::bench::quick;
  std::stringstream sizes(argc > 2 ? argv[2] : quick() ? "16" : "64,256");
  millrace::bench::Results results;
  std::printf(
      "| MiB published | publish ms | hash ms | read ms | write ms | read and write at once ms | "
      "publish / largest of hash, read, write: median (min to max), goal 1.15 | publish / largest "
      "of hash, both at once | write / write |\n|---|---|---|---|---|---|---|---|---|\n");
  for (std::string item; std::getline(sizes, item, ',');) {
    millrace::measure(std::stoul(item), argc > 3 ? std::stoi(argv[3]) : quick() ? 2 : 5, results);
  }
  results.write(argc > 1 ? argv[1] : nullptr);
}
