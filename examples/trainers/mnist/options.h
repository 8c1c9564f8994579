// The demo's command line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

struct Options {
  std::filesystem::path work_dir = "work/mnist";
  std::filesystem::path data;  // default: mnist_5k.csv.gz in $MILLRACE_DATA, or here
  std::int64_t epochs = 18;
  std::int64_t batch_size = 64;
  std::int64_t width = 5632;
  double lr = 3e-4;
  std::int64_t save_interval = 25;
  std::string mode = "auto";
  std::int64_t keep = 3;
  bool resume = false;
  std::string resume_from;
  std::uint64_t seed = 1;
  int threads = 0;
  std::string device = "cpu";

  std::string program;
  // What was given beyond where to work, how long, and what to resume: a run that goes on from its
  // checkpoints needs it again.
  std::vector<std::string> given;
};

// Fills `options`; the program's exit code when it shall end here, after --help or a wrong option.
// Throws ConfigError for a device that this build lacks.
std::optional<int> parse_options(int argc, char** argv, Options& options);

// A line for a shell that continues this run from its newest checkpoint, up to `epochs`.
std::string resume_command(const Options& options, std::int64_t epochs);
