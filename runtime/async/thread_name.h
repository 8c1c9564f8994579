// Names and priorities of threads, as tools like top and a debugger show them.
#pragma once

#include <string>

namespace millrace {

// Names the calling thread; Linux keeps the first 15 characters. Never fails.
void name_this_thread(const std::string& name) noexcept;

// Nice 10 and the lowest best-effort I/O level for the calling thread alone. Ignored where the
// system has no such thing or refuses.
void lower_this_threads_priority() noexcept;

}  // namespace millrace
