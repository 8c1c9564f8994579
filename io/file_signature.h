// Says what a file that is not a checkpoint looks like, so that a person who passed the wrong path
// reads "a PNG image" and not "bad magic".
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

// What the first bytes (some 512 of them) look like, with an article: "a PNG image", "a text file",
// "an empty file", or "an unknown format".
std::string looks_like(std::span<const std::byte> head);

// What a zip without data.pkl looks like from the names of its entries: "an Office document", "a
// NumPy .npz archive", "a zip archive".
std::string zip_looks_like(const std::vector<std::string_view>& names);

}  // namespace millrace
