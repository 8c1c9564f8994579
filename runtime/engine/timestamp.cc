#include "millrace/runtime/engine/timestamp.h"

#include <ctime>

namespace millrace {

std::string timestamp() {
  const std::time_t seconds = std::time(nullptr);
  std::tm parts{};
  localtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y%m%d_%H%M%S", &parts);
  return text;
}

}  // namespace millrace
