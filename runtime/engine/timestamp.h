#pragma once

#include <string>

namespace millrace {

// Local time as the reference writes it into names and meta: 20260131_235959.
std::string timestamp();

}  // namespace millrace
