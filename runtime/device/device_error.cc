#include "millrace/runtime/device/device_error.h"

#include <utility>

namespace millrace {

DeviceError::DeviceError(std::string call, const std::string& device, int code,
                         const std::string& text, bool sticky)
    : Error(call + " on " + device + ": " + text + " (error " + std::to_string(code) + ")"),
      call_(std::move(call)),
      code_(code),
      sticky_(sticky) {}

DeviceError::DeviceError(const std::string& context, const DeviceError& cause)
    : Error(context + ": " + cause.what()),
      call_(cause.call_),
      code_(cause.code_),
      sticky_(cause.sticky_) {}

}  // namespace millrace
