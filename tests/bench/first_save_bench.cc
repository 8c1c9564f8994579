// How much longer the copy of a run's first save takes than that of a later one, with the arena
// reserved before training and without.
//
// Every round makes a staging anew and measures its first three saves, eagerly copied; the second
// against the third is the noise floor. Rounds with and without reserve() take turns.
//
//   first_save_bench [raw.json] [sizes in MiB, default 64,256] [rounds, default 11]
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "millrace/runtime/staging/staging.h"
#include "tests/bench/results.h"

namespace millrace {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kSaves = 3;

double copy_ms(Staging& staging, const std::vector<CapturedStorage>& state) {
  const auto start = Clock::now();
  const auto snapshot = staging.begin(state, StageMode::kEager);
  snapshot->wait_all();
  const double ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  staging.gate().writable_all();
  return ms;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// One row a kind: [0] reserved, [1] not.
struct Ratios {
  std::vector<double> first, noise, later_ms;
};

void measure(std::size_t mib, int rounds, bench::Results& results) {
  constexpr std::size_t kStorage = std::size_t{2} << 20;
  std::vector<std::byte> live(mib << 20, std::byte{1});
  std::vector<CapturedStorage> state;
  for (std::size_t at = 0; at < live.size(); at += kStorage) {
    state.push_back({std::span<const std::byte>(live).subspan(at, kStorage)});
  }
  Ratios kinds[2];
  for (int round = 0; round < 2 * rounds; ++round) {
    Ratios& kind = kinds[round % 2];
    Staging staging;
    if (round % 2 == 0) staging.reserve(state);
    double ms[kSaves];
    for (double& each : ms) each = copy_ms(staging, state);
    kind.first.push_back(ms[0] / ms[2]);
    kind.noise.push_back(ms[1] / ms[2]);
    kind.later_ms.push_back(ms[2]);
    std::ostringstream text;
    text << "{\"mib\":" << mib << ",\"reserved\":" << (round % 2 == 0 ? "true" : "false")
         << ",\"ms\":[" << ms[0] << "," << ms[1] << "," << ms[2] << "]}";
    results.sample(text.str());
  }
  for (const Ratios& kind : kinds) {
    std::printf("| %zu MiB, %s | %.1f | %.2f (%.2f to %.2f) | %.2f |\n", mib,
                &kind == kinds ? "reserved" : "not reserved", median(kind.later_ms),
                median(kind.first), *std::min_element(kind.first.begin(), kind.first.end()),
                *std::max_element(kind.first.begin(), kind.first.end()), median(kind.noise));
    bench::ResultRow row{.item = "11",
                         .what = "copy of a run's first save",
                         .contender = &kind == kinds ? "Millrace" : "Millrace, nothing reserved",
                         .setting = std::to_string(mib) + " MiB",
                         .value = bench::spread(kind.first),
                         .base = "its third save",
                         .noise = bench::spread(kind.noise)};
    if (&kind == kinds) row.goal = 1.3;
    results.add(std::move(row));
  }
  std::fflush(stdout);
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  using millrace::bench::quick;
  std::stringstream sizes(argc > 2 ? argv[2] : quick() ? "16" : "64,256");
  millrace::bench::Results results;
  std::printf(
      "| arena | copy of a later save ms | first / later: median (min to max), goal 1.30 | "
      "second / third |\n|---|---|---|---|\n");
  for (std::string item; std::getline(sizes, item, ',');) {
    millrace::measure(std::stoul(item), argc > 3 ? std::atoi(argv[3]) : quick() ? 3 : 11, results);
  }
  results.write(argc > 1 ? argv[1] : nullptr);
}
