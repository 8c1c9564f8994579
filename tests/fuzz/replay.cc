// Runs a fuzz target without libFuzzer: on every file of its corpus, then on seeded mutations of
// them.
//
//   fuzz_<what> CORPUS WHAT SHARE WHOLE
//
// SHARE mutations in `make test`, WHOLE in `make stress`. An input that breaks something is left as
// fuzz_<what>.input in the working directory; given as the only argument it is run again.
#include <sanitizer/common_interface_defs.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/fuzz/invariant.h"
#include "tests/support/mutator.h"
#include "tests/support/stress.h"

namespace {

using Bytes = std::vector<std::byte>;

std::string kept;  // where the input goes that ends the process
const Bytes* running = nullptr;

// The process is at its end: nothing that this disturbs is used again.
void keep_input() {
  if (running == nullptr) return;
  std::ofstream out(kept, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(running->data()),
            static_cast<std::streamsize>(running->size()));
}

void run(const Bytes& input) {
  running = &input;
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  running = nullptr;
}

Bytes read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  Bytes bytes(std::filesystem::file_size(path));
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

std::vector<Bytes> read_all(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.push_back(entry);
  std::sort(paths.begin(), paths.end());
  std::vector<Bytes> corpus;
  for (const auto& path : paths) corpus.push_back(read(path));
  return corpus;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2) {
    run(read(argv[1]));
    return 0;
  }
  if (argc != 5) return 2;
  const std::string what = argv[2];
  kept = "fuzz_" + what + ".input";
  std::signal(SIGABRT, [](int) { keep_input(); });
  __sanitizer_set_death_callback(keep_input);
  const std::vector<Bytes> corpus = read_all(argv[1]);
  if (corpus.empty()) return 2;
  for (const Bytes& input : corpus) run(input);
  run({});
  const std::size_t mutations = millrace::test::stress_count(std::strtoull(argv[3], nullptr, 10),
                                                             std::strtoull(argv[4], nullptr, 10));
  millrace::test::Mutator mutator(millrace::test::stress_seed());
  for (std::size_t i = 0; i < mutations; ++i) run(mutator.mutate(corpus[i % corpus.size()]));
  millrace::test::stress_report("fuzz " + what + ": " +
                                std::to_string(corpus.size() + 1 + mutations) + " inputs, " +
                                std::to_string(corpus.size()) + " of them from the corpus");
  return 0;
}
