// The two questions the pickle code asks about UTF-8.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace millrace {

// Well-formed UTF-8. Encoded surrogates (ED A0..BF xx) count as well-formed: Python writes a lone
// surrogate of a str that way.
bool is_utf8(std::string_view text);

// The code points of `text` as bytes, or nothing when one is above 255: the inverse of Python's
// bytes.decode('latin1'), which is how protocol 2 stores bytes.
std::optional<std::string> latin1_bytes(std::string_view text);
// The other way: each byte as a code point.
std::string latin1_text(std::string_view bytes);

}  // namespace millrace
