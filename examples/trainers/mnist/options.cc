#include "examples/trainers/mnist/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/torch/step_device.h"

namespace {

constexpr std::int64_t kMillion = 1'000'000;

std::filesystem::path default_data() {
  const char* folder = std::getenv("MILLRACE_DATA");
  return std::filesystem::path(folder != nullptr ? folder : ".") / "mnist_5k.csv.gz";
}

template <class Number>
bool parses(const std::string& text, Number& value) {
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && rest == end;
}

// Checks the text itself: CLI11 would wrap -1 around to a large unsigned number.
template <class Number>
CLI::Validator number(Number first, Number last, const std::string& range) {
  const auto check = [first, last, range](std::string& text) {
    Number value{};
    const bool valid = parses(text, value) && value >= first && value <= last;
    return valid ? std::string() : "needs " + range + ", not '" + text + "'";
  };
  return CLI::Validator(check, "");
}

CLI::Validator whole(std::int64_t first, std::int64_t last) {
  return number(first, last,
                "a whole number from " + std::to_string(first) + " to " + std::to_string(last));
}

CLI::Validator one_of(const std::vector<std::string>& names) {
  const auto check = [names](std::string& text) {
    if (std::find(names.begin(), names.end(), text) != names.end()) return std::string();
    const std::string nearest = millrace::nearest_name(text, names);
    return "knows no '" + text + "'" +
           (nearest.empty() ? "" : " (did you mean '" + nearest + "'?)") +
           "; valid: " + CLI::detail::join(names, ", ");
  };
  return CLI::Validator(check, "");
}

void add_schedule(CLI::App& app, Options& o) {
  app.add_option("--epochs", o.epochs, "passes over the training digits")
      ->check(whole(1, kMillion))
      ->capture_default_str();
  app.add_option("--batch-size", o.batch_size, "digits per step")
      ->check(whole(1, kMillion))
      ->capture_default_str();
  app.add_option("--width", o.width, "neurons of the wide layer; sets the checkpoint's size")
      ->check(whole(1, kMillion))
      ->capture_default_str();
  app.add_option("--lr", o.lr, "AdamW's learning rate, after a warm-up of 50 steps")
      ->check(number(0.0, std::numeric_limits<double>::max(), "a number of at least 0"))
      ->capture_default_str();
  app.add_option("--seed", o.seed, "of weights, shuffling, dropout and the hold-out split")
      ->check(whole(0, std::numeric_limits<std::int64_t>::max()))
      ->capture_default_str();
  app.add_option("--threads", o.threads, "LibTorch's threads; 0: all cores but one")
      ->check(whole(0, 1024))
      ->capture_default_str();
  app.add_option("--device", o.device, "cpu, cuda, cuda:1, ...")->capture_default_str();
}

void add_checkpoints(CLI::App& app, Options& o) {
  app.add_option("--work-dir", o.work_dir, "where checkpoints, log and trace go")
      ->check(CLI::Validator(
          [](std::string& text) { return text.empty() ? std::string("needs a path") : ""; }, ""))
      ->capture_default_str();
  app.add_option("--data", o.data, "mnist_5k.csv.gz; default: in $MILLRACE_DATA");
  app.add_option("--save-interval", o.save_interval, "iterations between checkpoints")
      ->check(whole(1, 1000 * kMillion))
      ->capture_default_str();
  app.add_option("--mode", o.mode, "how state is copied: auto, lazy, eager or blocking")
      ->check(one_of({"auto", "lazy", "eager", "blocking"}))
      ->capture_default_str();
  app.add_option("--keep", o.keep, "newest checkpoints that are kept; -1 keeps all")
      ->check(CLI::Validator(
          [](std::string& text) {
            std::int64_t value = 0;
            const bool valid = parses(text, value) && (value == -1 || value > 0);
            return valid ? std::string() : "needs 1 or more, or -1 for all, not '" + text + "'";
          },
          ""))
      ->capture_default_str();
  auto* resume = app.add_flag("--resume", o.resume, "continue from the newest valid checkpoint");
  app.add_option("--resume-from", o.resume_from, "continue from this checkpoint")->excludes(resume);
}

int unknown_options(const CLI::App& app, int exit_code) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) names.push_back(option->get_name());
  std::vector<std::string> unknown = app.remaining();
  const auto is_option = [](const std::string& text) { return text.starts_with('-'); };
  // What follows an unknown option is most likely its value.
  if (std::any_of(unknown.begin(), unknown.end(), is_option)) {
    std::erase_if(unknown, [&](const std::string& text) { return !is_option(text); });
  }
  for (const std::string& text : unknown) {
    const std::string nearest = millrace::nearest_name(text.substr(0, text.find('=')), names);
    std::fprintf(stderr, "unknown option %s%s\n", text.c_str(),
                 nearest.empty() ? "" : (" (did you mean '" + nearest + "'?)").c_str());
  }
  std::fprintf(stderr, "Run with --help for the options.\n");
  return exit_code;
}

std::vector<std::string> given_options(const CLI::App& app) {
  const std::vector<std::string> own{"--work-dir", "--data", "--epochs", "--resume",
                                     "--resume-from"};
  std::vector<std::string> given;
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_name();
    if (option->count() == 0 || std::find(own.begin(), own.end(), name) != own.end()) continue;
    given.push_back(name);
    given.push_back(option->results().front());
  }
  return given;
}

std::string quoted(const std::string& word) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=+,@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? "'\\''" : std::string(1, c);
  return text + "'";
}

std::string absolute_text(const std::filesystem::path& path) {
  return std::filesystem::absolute(path).lexically_normal().string();
}

}  // namespace

std::optional<int> parse_options(int argc, char** argv, Options& options) {
  CLI::App app("Trains a digit classifier while writing durable checkpoints beside the step");
  add_schedule(app, options);
  add_checkpoints(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ExtrasError& error) {
    return unknown_options(app, error.get_exit_code());
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  millrace::check_device(options.device);
  if (options.data.empty()) options.data = default_data();
  options.program = argv[0];
  options.given = given_options(app);
  return std::nullopt;
}

std::string resume_command(const Options& options, std::int64_t epochs) {
  std::vector<std::string> words{options.program, "--work-dir", absolute_text(options.work_dir),
                                 "--data", absolute_text(options.data)};
  words.insert(words.end(), options.given.begin(), options.given.end());
  words.insert(words.end(), {"--epochs", std::to_string(epochs), "--resume"});
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : " ") + quoted(word);
  return line;
}
