#include "millrace/runtime/engine/log_processor.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>
#include <utility>

namespace millrace {
namespace {

using Line = fmt::memory_buffer;

template <class... T>
void add(Line& line, fmt::format_string<T...> format, T&&... values) {
  fmt::format_to(std::back_inserter(line), format, std::forward<T>(values)...);
}

int digits(std::int64_t value) { return static_cast<int>(std::to_string(value).size()); }

}  // namespace

std::string duration_text(double seconds) {
  const auto total = std::isfinite(seconds) ? static_cast<std::int64_t>(seconds) : 0;
  const std::int64_t days = total / 86400;
  const std::string clock =
      fmt::format("{}:{:02}:{:02}", total % 86400 / 3600, total % 3600 / 60, total % 60);
  if (days == 0) return clock;
  return fmt::format("{} day{}, {}", days, days == 1 ? "" : "s", clock);
}

LogProcessor::LogProcessor(LogProcessorOptions options, const MessageHub& hub)
    : options_(std::move(options)), hub_(hub) {}

void LogProcessor::refresh() {
  for (; known_ < hub_.scalars().size(); ++known_) {
    const auto& scalar = hub_.scalars()[known_];
    for (const LoopMode mode : {LoopMode::kTrain, LoopMode::kVal, LoopMode::kTest}) {
      const std::string prefix = std::string(loop_mode_name(mode)) + "/";
      if (!scalar.name.starts_with(prefix)) continue;
      std::string label = scalar.name.substr(prefix.size());
      const bool mean = std::any_of(
          options_.mean_names.begin(), options_.mean_names.end(),
          [&](const std::string& part) { return label.find(part) != std::string::npos; });
      columns_.push_back({mode, std::move(label), mean, &scalar.history});
    }
  }
}

double LogProcessor::shown(const Column& column) const {
  return column.mean ? column.history->mean(options_.window_size) : column.history->current();
}

std::string LogProcessor::train_line(const Progress& at, std::int64_t batch_idx,
                                     double memory_mib) {
  refresh();
  Line line;
  if (at.by_epoch) {
    const std::string epoch = "[" + std::to_string(at.epoch + 1) + "]";
    add(line, "Epoch(train){:>{}}[{:>{}}/{}]  ", epoch, digits(at.max_epochs) + 3, batch_idx + 1,
        digits(at.epoch_length), at.epoch_length);
  } else {
    add(line, "Iter(train) [{:>{}}/{}]  ", at.iter + 1, digits(at.max_iters), at.max_iters);
  }
  const Column* time = nullptr;
  const Column* data_time = nullptr;
  for (const Column& column : columns_) {
    if (column.mode != LoopMode::kTrain || column.history->empty()) continue;
    if (column.label == "lr") add(line, "lr: {:.{}e}  ", shown(column), options_.num_digits);
    if (column.label == "time") time = &column;
    if (column.label == "data_time") data_time = &column;
  }
  const pickle::Value* eta = hub_.find_info("eta");
  if (eta != nullptr && time != nullptr && data_time != nullptr) {
    add(line, "eta: {}  time: {:.{}f}  data_time: {:.{}f}  ",
        duration_text(eta->as_double().value_or(0)), shown(*time), options_.num_digits,
        shown(*data_time), options_.num_digits);
  }
  if (memory_mib > 0) add(line, "memory: {}  ", static_cast<std::int64_t>(memory_mib));
  const char* separator = "";
  for (const Column& column : columns_) {
    const bool shown_already = column.label == "lr" || &column == time || &column == data_time;
    if (column.mode != LoopMode::kTrain || shown_already || column.history->empty()) continue;
    add(line, "{}{}: {:.{}f}", separator, column.label, shown(column), options_.num_digits);
    separator = "  ";
  }
  return fmt::to_string(line);
}

std::string LogProcessor::iter_line(LoopMode mode, const Progress& at, std::int64_t batch_idx,
                                    std::int64_t batches) {
  refresh();
  Line line;
  const int width = digits(batches);
  if (at.by_epoch && mode == LoopMode::kVal) {
    const std::string epoch = "[" + std::to_string(at.epoch) + "]";
    add(line, "Epoch(val){:>{}}[{:>{}}/{}]  ", epoch, digits(at.max_epochs) + 3, batch_idx + 1,
        width, batches);
  } else {
    add(line, "{}({}) [{:>{}}/{}]  ", at.by_epoch ? "Epoch" : "Iter", loop_mode_name(mode),
        batch_idx + 1, width, batches);
  }
  add(line, "  ");
  double time = 0;
  double data_time = 0;
  for (const Column& column : columns_) {
    if (column.mode != mode || column.history->empty()) continue;
    if (column.label == "time") time = shown(column);
    if (column.label == "data_time") data_time = shown(column);
  }
  const pickle::Value* eta = hub_.find_info("eta");
  add(line, "eta: {}  time: {:.{}f}  data_time: {:.{}f}  ",
      duration_text(eta != nullptr ? eta->as_double().value_or(0) : 0), time, options_.num_digits,
      data_time, options_.num_digits);
  return fmt::to_string(line);
}

std::string LogProcessor::epoch_line(LoopMode mode, const Progress& at, std::int64_t batches) {
  refresh();
  Line line;
  if (at.by_epoch && mode == LoopMode::kVal) {
    add(line, "Epoch(val) [{}][{}/{}]  ", at.epoch, batches, batches);
  } else {
    add(line, "{}({}) [{}/{}]  ", at.by_epoch ? "Epoch" : "Iter", loop_mode_name(mode), batches,
        batches);
  }
  const auto is_timer = [](const Column& c) { return c.label == "time" || c.label == "data_time"; };
  for (const Column& column : columns_) {
    if (column.mode != mode || is_timer(column) || column.history->empty()) continue;
    add(line, "  {}: {:.{}f}", column.label, column.history->current(), options_.num_digits);
  }
  for (const char* timer : {"data_time", "time"}) {
    for (const Column& column : columns_) {
      if (column.mode != mode || column.label != timer || column.history->empty()) continue;
      add(line, "  {}: {:.{}f}", column.label, shown(column), options_.num_digits);
    }
  }
  return fmt::to_string(line);
}

}  // namespace millrace
