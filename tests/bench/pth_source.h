// Checkpoint files with bytes that nobody can compress, for benchmarks of reading and publishing.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "millrace/io/storage.h"

namespace millrace::bench {

std::vector<std::byte> random_bytes(std::size_t size);

// A file with `mib` of weights, and an optimizer state of twice that.
void write_source(Storage& storage, const std::string& name, std::size_t mib);

// The file is read from the disk the next time. It must be on the disk: dirty pages stay.
void drop_cache(const std::filesystem::path& path);

}  // namespace millrace::bench
