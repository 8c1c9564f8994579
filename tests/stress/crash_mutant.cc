// crash_mutant <kind of fault>...: the search of crash_states_test in a program of which one source
// is a mutant (cmake/millrace_mutant.cmake). Succeeds when it finds a fault of one of the kinds.
#include <cstdio>
#include <string_view>

#include "tests/stress/crash_search.h"
#include "tests/support/stress.h"

int main(int argc, char** argv) {
  millrace::test::CrashSearch search;
  search.seed = millrace::test::stress_seed();
  search.states_per_run = 2000;
  search.resumes_per_run = 0;
  search.faults_at_most = 100;  // the first ones may be of another kind
  millrace::test::CrashFindings findings;
  search_crash_states(search, findings);
  for (const millrace::test::CrashFault& fault : findings.faults) {
    std::printf("%.*s: %s\n", static_cast<int>(fault.kind.size()), fault.kind.data(),
                fault.text.c_str());
  }
  std::printf("%zu faults in %zu states\n", findings.faults.size(), findings.checked);
  for (int i = 1; i < argc; ++i) {
    if (findings.has(argv[i])) return 0;
  }
  return 1;
}
