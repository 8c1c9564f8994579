// Runs the plans, and looks for a disk on which a promise is broken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/stress/crash_check.h"

namespace millrace::test {

struct CrashSearch {
  std::uint64_t seed = 1;
  std::size_t per_point = 24;        // states that there are, see CrashLimits
  std::size_t states_per_run = 150;  // checked, of those
  std::size_t resumes_per_run = 2;   // whole trainings on one of them
  bool delays = false;               // some operations take longer, CrashPlan::delays
  std::size_t faults_at_most = 5;    // then the search ends
};

struct CrashFindings {
  std::size_t runs = 0, operations = 0, points = 0, all_of = 0, distinct = 0, checked = 0;
  std::size_t resumed = 0;
  std::size_t rebuilt = 0;  // disks of which the catalog was corrupt, and none of its pins known
  std::vector<CrashFault> faults;  // with the run, the operations before the cut and the state

  bool has(std::string_view kind) const;
};

// Every plan of the seed. A run that throws is a fault of the kind kRecovery.
void search_crash_states(const CrashSearch& search, CrashFindings& findings);

}  // namespace millrace::test
