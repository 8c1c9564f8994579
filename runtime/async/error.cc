#include "millrace/runtime/async/error.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace millrace {
namespace {

std::string config_text(const std::string& key, const std::string& problem,
                        const std::string& nearest) {
  std::string text = key + ": " + problem;
  if (!nearest.empty()) text += " (did you mean '" + nearest + "'?)";
  return text;
}

std::string storage_text(const std::string& operation, const std::string& path, int error_number,
                         const std::string& detail) {
  std::string text = operation + " " + path;
  if (error_number != 0) text += std::string(": ") + std::strerror(error_number);
  if (!detail.empty()) text += ": " + detail;
  return text;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row.back();
}

}  // namespace

ConfigError::ConfigError(std::string key, const std::string& problem, std::string nearest)
    : Error(config_text(key, problem, nearest)),
      key_(std::move(key)),
      nearest_(std::move(nearest)) {}

StorageError::StorageError(std::string operation, std::string path, int error_number,
                           const std::string& detail)
    : Error(storage_text(operation, path, error_number, detail)),
      operation_(std::move(operation)),
      path_(std::move(path)),
      error_number_(error_number) {}

CheckpointError::CheckpointError(std::string path, const std::string& problem)
    : Error("checkpoint " + path + ": " + problem), path_(std::move(path)) {}

std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates) {
  std::string best;
  std::size_t best_distance = name.size() / 2 + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace millrace
