#include "millrace/io/object_name.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <random>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

constexpr std::size_t kMaxName = 200;  // leaves room for the hidden forms in a name of 255 bytes
constexpr std::size_t kRandomDigits = 16;
constexpr std::string_view kTemp = ".tmp";
constexpr std::string_view kTrash = ".trash";

bool is_object_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxName && name.front() != '.' &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

bool is_hex_digit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

std::string hidden_name(std::string_view object, std::string_view suffix) {
  std::random_device device;
  std::string digits;
  while (digits.size() < kRandomDigits) {
    for (std::uint32_t bits = device(), i = 0; i < 8; ++i, bits >>= 4) {
      digits += "0123456789abcdef"[bits & 15U];
    }
  }
  return "." + std::string(object) + "." + digits + std::string(suffix);
}

}  // namespace

void check_object_name(std::string_view operation, std::string_view name) {
  if (is_object_name(name)) return;
  throw StorageError(std::string(operation), "'" + std::string(name) + "'", EINVAL,
                     "an object's name has 1 to " + std::to_string(kMaxName) +
                         " bytes, no slash and no leading dot");
}

bool is_hidden_name(std::string_view name) { return name.empty() || name.front() == '.'; }

std::string temp_name(std::string_view object) { return hidden_name(object, kTemp); }
std::string trash_name(std::string_view object) { return hidden_name(object, kTrash); }

bool is_leftover_name(std::string_view name) {
  if (name.empty() || name.front() != '.') return false;
  name.remove_prefix(1);
  if (name.ends_with(kTemp)) {
    name.remove_suffix(kTemp.size());
  } else if (name.ends_with(kTrash)) {
    name.remove_suffix(kTrash.size());
  } else {
    return false;
  }
  if (name.size() < kRandomDigits + 2) return false;
  const std::string_view digits = name.substr(name.size() - kRandomDigits);
  name.remove_suffix(kRandomDigits);
  if (name.back() != '.' || !std::all_of(digits.begin(), digits.end(), is_hex_digit)) return false;
  name.remove_suffix(1);
  return is_object_name(name);
}

}  // namespace millrace
