#include "examples/trainers/mnist/digits.h"

#include <zlib.h>

#include <charconv>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/runtime/async/error.h"

namespace {

constexpr std::size_t kPixels = 28 * 28;

std::string unzip(const std::filesystem::path& file) {
  const gzFile input = gzopen(file.c_str(), "rb");
  if (input == nullptr) {
    throw millrace::ConfigError(
        "data",
        file.string() + " cannot be opened; run 'make setup', or name " + "the file with --data");
  }
  std::string text;
  char block[1 << 16];
  int count = 0;
  while ((count = gzread(input, block, sizeof block)) > 0)
    text.append(block, static_cast<std::size_t>(count));
  int status = Z_OK;
  const std::string problem = gzerror(input, &status);
  const bool whole = count == 0 && gzclose(input) == Z_OK;
  if (!whole) {
    throw millrace::ConfigError("data", file.string() + " is truncated or no gzip file" +
                                            (problem.empty() ? "" : " (" + problem + ")"));
  }
  return text;
}

// The next number of `line`, which is shortened by it and the comma behind.
bool next_number(std::string_view& line, int& value) {
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value);
  if (error != std::errc()) return false;
  line.remove_prefix(static_cast<std::size_t>(end - line.data()));
  if (line.starts_with(',')) line.remove_prefix(1);
  return true;
}

struct Table {
  std::vector<float> pixels;
  std::vector<std::int64_t> labels;
};

Table parse(std::string_view text, const std::filesystem::path& file) {
  Table table;
  std::size_t number = 0;
  while (!text.empty()) {
    ++number;
    const auto end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    int value = 0;
    bool valid = true;
    for (std::size_t i = 0; i < kPixels && valid; ++i) {
      valid = next_number(line, value) && value >= 0 && value <= 255;
      table.pixels.push_back(static_cast<float>(value) / 255);
    }
    valid = valid && next_number(line, value) && value >= 0 && value <= 9 && line.empty();
    if (!valid) {
      throw millrace::ConfigError("data", file.string() + ", line " + std::to_string(number) +
                                              ": expected 784 pixels 0..255 and a label 0..9");
    }
    table.labels.push_back(value);
  }
  return table;
}

std::shared_ptr<const millrace::Dataset> pick(const Table& table,
                                              std::span<const std::int64_t> rows) {
  std::vector<float> pixels;
  std::vector<std::int64_t> labels;
  pixels.reserve(rows.size() * kPixels);
  for (const std::int64_t row : rows) {
    const auto first = table.pixels.begin() + row * static_cast<std::ptrdiff_t>(kPixels);
    pixels.insert(pixels.end(), first, first + kPixels);
    labels.push_back(table.labels[static_cast<std::size_t>(row)]);
  }
  using millrace::InMemoryDataset;
  std::vector<InMemoryDataset::Column> columns;
  columns.push_back(InMemoryDataset::column<float>(millrace::DType::kFloat32, {1, 28, 28}, pixels));
  columns.push_back(InMemoryDataset::column<std::int64_t>(millrace::DType::kInt64, {}, labels));
  return std::make_shared<InMemoryDataset>(std::move(columns));
}

}  // namespace

Digits load_digits(const std::filesystem::path& file, double holdout, std::uint64_t seed) {
  const Table table = parse(unzip(file), file);
  if (table.labels.empty()) throw millrace::ConfigError("data", file.string() + " holds no digit");
  const auto split = millrace::stratified_split(table.labels, holdout, seed);
  if (split.train.empty() || split.holdout.empty()) {
    throw millrace::ConfigError(
        "data", file.string() + " holds too few digits to keep " + "some of them for validation");
  }
  return {pick(table, split.train), pick(table, split.holdout)};
}
