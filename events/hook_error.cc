#include "millrace/events/hook_error.h"

namespace millrace {

HookError::HookError(const std::string& text, std::string event, std::string hook)
    : Error(text), event_(std::move(event)), hook_(std::move(hook)) {}

void HookError::throw_wrapped(std::string_view event, const std::string& hook) {
  const std::string place = std::string(event) + " in " + hook;
  try {
    throw;
  } catch (const HookError& inner) {
    // std::nested_exception takes what is being handled, so the root cause is made that.
    try {
      inner.rethrow_nested();
    } catch (...) {
      throw HookError(place + " > " + inner.what(), inner.event(), inner.hook());
    }
  } catch (const std::exception& error) {
    throw HookError(place + ": " + error.what(), std::string(event), hook);
  } catch (...) {
    throw HookError(place + ": an exception that is no std::exception", std::string(event), hook);
  }
  std::terminate();  // not reached: rethrow_nested() always throws
}

}  // namespace millrace
