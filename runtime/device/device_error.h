// A call to a device failed.
//
// A *sticky* failure is one that the device does not recover from (a lost device, a bad address in
// a kernel): every later call fails, and the process has to start anew to use the device again.
#pragma once

#include <string>

#include "millrace/runtime/async/error.h"

namespace millrace {

// what() is "<call> on <device>: <text> (error <code>)".
class DeviceError : public Error {
 public:
  DeviceError(std::string call, const std::string& device, int code, const std::string& text,
              bool sticky);
  // The same failure, where it was met: what() is "<context>: <cause's>".
  DeviceError(const std::string& context, const DeviceError& cause);
  const std::string& call() const noexcept { return call_; }
  int code() const noexcept { return code_; }
  bool sticky() const noexcept { return sticky_; }

 private:
  std::string call_;
  int code_;
  bool sticky_;
};

}  // namespace millrace
