// How much of a stress test is run: a seeded share in `make test`, the whole in `make stress`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace millrace::test {

// MILLRACE_STRESS=1 is in the environment.
bool stress_is_whole();

// `whole` or `share`; under a sanitizer a third of the share, but at least one.
std::size_t stress_count(std::size_t share, std::size_t whole);

// MILLRACE_SEED of the environment, so that a failure can be repeated; else 20260229.
std::uint64_t stress_seed();

// Prints "stress: <text>; seed <seed>", which `make test` and `make stress` show above ctest's
// summary. `text` begins with what was done, then counts: "crash states: 412 of 9 runs".
void stress_report(const std::string& text);

}  // namespace millrace::test
