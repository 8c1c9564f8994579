#include "tests/stress/crash_search.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <numeric>
#include <optional>
#include <random>
#include <utility>

namespace millrace::test {
namespace {

constexpr std::size_t kTold = 14;  // operations before the cut, in a message

std::string story(const CrashRun& run, const CrashState& state) {
  const std::vector<DiskOperation>& all = run.log().operations;
  std::string text =
      "\n  after operation " + std::to_string(state.operations) + " of '" + run.plan().name + "':";
  for (std::size_t i = state.operations - std::min(state.operations, kTold); i < state.operations;
       ++i) {
    text += "\n    " + all[i].text();
  }
  return text + "\n  left: " + state.how;
}

// `count` of the numbers below `of`, in order.
std::vector<std::size_t> some_of(std::size_t of, std::size_t count, std::mt19937_64& random) {
  std::vector<std::size_t> all(of), some;
  std::iota(all.begin(), all.end(), std::size_t{0});
  std::sample(all.begin(), all.end(), std::back_inserter(some), count, random);
  return some;
}

class Search {
 public:
  Search(const CrashSearch& search, const CrashRun& run, CrashFindings& findings)
      : search_(search), run_(run), check_(run), findings_(findings) {}

  void go(std::uint64_t seed) {
    const CrashLimits limits{.per_point = search_.per_point, .seed = seed};
    const CrashCounts counts = for_each_crash_state(run_.log(), limits, [](const CrashState&) {});
    findings_.operations += run_.log().operations.size();
    findings_.points += counts.points;
    findings_.all_of += counts.all_of;
    findings_.distinct += counts.states;
    std::mt19937_64 random(seed);
    const auto chosen = some_of(counts.states, search_.states_per_run, random);
    const auto resumed = some_of(chosen.size(), search_.resumes_per_run, random);
    std::size_t state_number = 0, number = 0;
    for_each_crash_state(run_.log(), limits, [&](const CrashState& state) {
      const bool taken = number < chosen.size() && chosen[number] == state_number++;
      if (!taken || findings_.faults.size() >= search_.faults_at_most) return;
      add(check_.check(state), state);
      ++findings_.checked;
      if (check_.catalog_is_corrupt()) ++findings_.rebuilt;
      if (std::binary_search(resumed.begin(), resumed.end(), number++)) {
        add(check_.resume(state), state);
        ++findings_.resumed;
      }
    });
  }

 private:
  void add(std::vector<CrashFault> faults, const CrashState& state) {
    for (CrashFault& fault : faults) {
      fault.text += story(run_, state);
      findings_.faults.push_back(std::move(fault));
    }
  }

  const CrashSearch& search_;
  const CrashRun& run_;
  CrashCheck check_;
  CrashFindings& findings_;
};

}  // namespace

bool CrashFindings::has(std::string_view kind) const {
  return std::any_of(faults.begin(), faults.end(),
                     [&](const CrashFault& fault) { return fault.kind == kind; });
}

void search_crash_states(const CrashSearch& search, CrashFindings& findings) {
  std::uint64_t seed = search.seed;
  for (CrashPlan& plan : crash_plans(search.seed)) {
    if (findings.faults.size() >= search.faults_at_most) return;
    if (search.delays) plan.delays = seed + 1;
    try {
      const CrashRun run(plan);
      ++findings.runs;
      Search(search, run, findings).go(++seed);
    } catch (const std::exception& error) {
      findings.faults.push_back({crash_fault::kRecovery, plan.name + ": " + error.what()});
    }
  }
}

}  // namespace millrace::test
