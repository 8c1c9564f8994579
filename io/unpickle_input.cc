#include "millrace/io/unpickle_input.h"

#include <utility>

namespace millrace::pickle {

std::string_view UnpickleInput::line() {
  const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + at_, left());
  const std::size_t end = rest.find('\n');
  if (end == std::string_view::npos) fail(Fault::Kind::truncated, "The pickle ends inside a name.");
  at_ += end + 1;
  return rest.substr(0, end);
}

void UnpickleInput::fail(Fault::Kind kind, std::string what) const {
  throw Fault{kind, "pickle byte " + std::to_string(opcode_at_), std::move(what)};
}

void UnpickleInput::corrupt(std::string what) const { fail(Fault::Kind::corrupt, std::move(what)); }

void UnpickleInput::fail_short(std::uint64_t size) const {
  fail(Fault::Kind::truncated, "The pickle ends inside an item of " + std::to_string(size) +
                                   " bytes; " + std::to_string(left()) + " are left.");
}

}  // namespace millrace::pickle
