#include "millrace/io/checkpoint_name.h"

namespace millrace {
namespace {

constexpr std::string_view kSuffix = ".pth";
constexpr std::size_t kDigits = 8;

}  // namespace

bool is_checkpoint_name(std::string_view name) { return name.ends_with(kSuffix); }

bool is_published_name(std::string_view name) {
  if (!is_checkpoint_name(name)) return false;
  name.remove_suffix(kSuffix.size());
  if (name.size() < kDigits + 2 || name[name.size() - kDigits - 1] != '-') return false;
  const std::string_view digits = name.substr(name.size() - kDigits);
  return digits.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string_view name_stem(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  return dot == 0 || dot == std::string_view::npos ? name : name.substr(0, dot);
}

std::string published_name(std::string_view name, std::string_view sha256) {
  return std::string(name_stem(name)) + "-" + std::string(sha256.substr(0, kDigits)) +
         std::string(kSuffix);
}

}  // namespace millrace
