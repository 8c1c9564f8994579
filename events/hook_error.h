// HookError: a subscriber threw. It names the event and the hook and carries what was thrown.
#pragma once

#include <exception>
#include <string>
#include <string_view>

#include "millrace/runtime/async/error.h"

namespace millrace {

// what() is "<event> in <hook>: <text of the original>". When the hook failed because an event that
// it published itself had a failing subscriber, the chain is spelt out from the outside,
// "<event> in <hook> > <event> in <hook>: <text>", while event() and hook() name the innermost and
// the nested exception is always what that one threw, never another HookError.
class HookError : public Error, public std::nested_exception {
 public:
  const std::string& event() const noexcept { return event_; }
  const std::string& hook() const noexcept { return hook_; }

  // Call it while an exception is handled: throws that exception wrapped, or a HookError
  // lengthened.
  [[noreturn]] static void throw_wrapped(std::string_view event, const std::string& hook);

 private:
  HookError(const std::string& text, std::string event, std::string hook);

  std::string event_;
  std::string hook_;
};

}  // namespace millrace
