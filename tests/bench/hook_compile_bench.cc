// How long a user's tensor-free hook file takes to compile, against a file with the standard
// headers it needs anyway. One core, the compiler of this build, -O2, no cache. Minimum and median
// of the repetitions, which alternate.
//
//   hook_compile_bench [raw.json] [repetitions]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/bench/results.h"
#include "tests/support/temp_dir.h"

namespace {

struct Row {
  const char* name;
  const char* source;
  std::vector<double> seconds;
};

double compile(const std::string& file) {
  const std::string command = std::string(MILLRACE_CXX) +
                              " -std=c++20 -O2 -I" MILLRACE_SOURCE_DIR " -I" MILLRACE_INCLUDE_DIR
                              " -c " +
                              file + " -o " + file + ".o";
  const auto start = std::chrono::steady_clock::now();
  if (std::system(command.c_str()) != 0) std::exit(1);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) {
  const int repetitions = argc > 2 ? std::atoi(argv[2]) : millrace::bench::quick() ? 2 : 9;
  Row rows[] = {{"a user's hook file",
                 "#include \"examples/quickstart/stop_when_learned.h\"\n"
                 "void use(millrace::Subscriptions& on) { static StopWhenLearned hook; "
                 "hook.subscribe(on); }\n",
                 {}},
                {"standard headers alone",
                 "#include <chrono>\n#include <functional>\n#include <memory>\n#include <string>\n"
                 "#include <vector>\nstd::string f() { return \"x\"; }\n",
                 {}}};
  const millrace::test::TempDir dir;
  for (int r = 0; r < repetitions; ++r) {
    for (std::size_t i = 0; i < std::size(rows); ++i) {
      const std::string file = dir.path().string() + "/hook" + std::to_string(i) + ".cc";
      std::ofstream(file) << rows[i].source;
      rows[i].seconds.push_back(compile(file));
    }
  }
  std::printf("%-24s %10s %10s\n", "compile", "min s", "median s");
  std::vector<double> ratios;
  for (std::size_t r = 0; r < rows[0].seconds.size(); ++r) {
    ratios.push_back(rows[0].seconds[r] / rows[1].seconds[r]);
  }
  millrace::bench::Results results;
  for (const Row& row : rows) {
    const auto seconds = millrace::bench::spread(row.seconds);
    std::printf("%-24s %10.2f %10.2f\n", row.name, seconds.low, seconds.median);
    std::ostringstream text;
    text << "{\"name\": \"" << row.name << "\", \"min_s\": " << seconds.low
         << ", \"median_s\": " << seconds.median << "}";
    results.sample(text.str());
  }
  results.add({.item = "12",
               .what = "compiling a hook",
               .contender = "Millrace, a user's hook file",
               .setting = "one core, -O2, no cache",
               .value = millrace::bench::spread(ratios),
               .base = "the standard headers alone"});
  results.write(argc > 1 ? argv[1] : nullptr);
}
