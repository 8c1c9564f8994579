#include "millrace/events/priority.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

struct Level {
  std::string_view name;
  Priority priority;
};

constexpr std::array<Level, 9> kLevels{{{"HIGHEST", Priority::kHighest},
                                        {"VERY_HIGH", Priority::kVeryHigh},
                                        {"HIGH", Priority::kHigh},
                                        {"ABOVE_NORMAL", Priority::kAboveNormal},
                                        {"NORMAL", Priority::kNormal},
                                        {"BELOW_NORMAL", Priority::kBelowNormal},
                                        {"LOW", Priority::kLow},
                                        {"VERY_LOW", Priority::kVeryLow},
                                        {"LOWEST", Priority::kLowest}}};

std::string in_capitals(std::string_view text) {
  std::string capitals(text);
  for (char& c : capitals) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return capitals;
}

std::string nearest_level(const std::string& name) {
  std::vector<std::string> names;
  for (const Level& level : kLevels) names.emplace_back(level.name);
  return nearest_name(name, names);
}

}  // namespace

void Priority::out_of_range(int value) {
  throw ConfigError("priority", "must be between 0 and 100, is " + std::to_string(value));
}

Priority Priority::parse(std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size()) return Priority(number);

  const std::string name = in_capitals(text);
  for (const Level& level : kLevels) {
    if (level.name == name) return level.priority;
  }
  throw ConfigError("priority",
                    "'" + std::string(text) + "' is neither a level nor a number from 0 to 100",
                    nearest_level(name));
}

std::string Priority::name() const {
  const auto level = std::find_if(kLevels.begin(), kLevels.end(),
                                  [this](const Level& l) { return l.priority == *this; });
  return level != kLevels.end() ? std::string(level->name) : std::to_string(value());
}

}  // namespace millrace
