// Priority: the place of a subscriber in the order of its event, 0 (first) to 100 (last).
//
// The nine levels and their numbers are the reference's, and so is the rule that smaller runs
// first. Subscribers of equal priority run in the order they subscribed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace millrace {

class Priority {
 public:
  // Implicit, so that a plain number works where a priority is meant. Throws ConfigError outside
  // 0..100; in a constant expression that is a compile error.
  constexpr Priority(int value) : value_(static_cast<std::int8_t>(value)) {  // NOLINT
    if (value < 0 || value > 100) out_of_range(value);
  }

  // A level name in any case ("VERY_HIGH", "very_high") or a number. Throws ConfigError, which
  // names the nearest level.
  static Priority parse(std::string_view text);

  constexpr int value() const noexcept { return value_; }
  std::string name() const;  // the level's name in capitals, else the number

  friend constexpr auto operator<=>(const Priority&, const Priority&) = default;

  static const Priority kHighest;
  static const Priority kVeryHigh;
  static const Priority kHigh;
  static const Priority kAboveNormal;
  static const Priority kNormal;
  static const Priority kBelowNormal;
  static const Priority kLow;
  static const Priority kVeryLow;
  static const Priority kLowest;

 private:
  [[noreturn]] static void out_of_range(int value);

  std::int8_t value_;
};

inline constexpr Priority Priority::kHighest{0};
inline constexpr Priority Priority::kVeryHigh{10};
inline constexpr Priority Priority::kHigh{30};
inline constexpr Priority Priority::kAboveNormal{40};
inline constexpr Priority Priority::kNormal{50};
inline constexpr Priority Priority::kBelowNormal{60};
inline constexpr Priority Priority::kLow{70};
inline constexpr Priority Priority::kVeryLow{90};
inline constexpr Priority Priority::kLowest{100};

}  // namespace millrace
