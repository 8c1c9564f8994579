// Writes zips by hand, right or wrong on purpose. Shares nothing with the code it tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace millrace::test {

struct ZipPart {
  std::string name = {}, content = {};
  bool deflate = false;
  bool descriptor = false;           // zeros in the local header, the values after the data
  bool descriptor_signature = true;  // as most writers do it
  bool no_descriptor = false;        // nothing after the data, though flag bit 3 says so
  bool zip64 = false;                // sizes in the extra fields of both headers
  // What the directory claims in place of the truth.
  std::optional<std::uint64_t> size = {}, stored_size = {}, header_offset = {};
  std::optional<std::uint32_t> crc = {};
  // What the descriptor claims in place of the truth.
  std::optional<std::uint64_t> descriptor_crc = {}, descriptor_stored = {}, descriptor_size = {};
  std::optional<std::string> local_name = {};
  std::uint16_t flags = 0, method = 0;  // method counts when it is not 0
};

struct ZipShape {
  bool zip64_end = false;
  std::string comment = {};
  std::optional<std::uint64_t> entries = {}, directory_offset = {}, directory_size = {};
};

std::vector<std::byte> build_zip(const std::vector<ZipPart>& parts, const ZipShape& shape = {});

// Raw deflate of `text`.
std::string deflated(const std::string& text);

}  // namespace millrace::test
