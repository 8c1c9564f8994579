// Sizes and times as people read them in messages: "102.4 MiB", "3.1 ms".
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace millrace {

std::string size_text(std::uint64_t bytes);            // B, KiB, MiB or GiB, one decimal
std::string time_text(std::chrono::nanoseconds time);  // us, ms or s, one decimal

}  // namespace millrace
