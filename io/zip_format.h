// The zip structures that Millrace writes and reads, little-endian:
//
// clang-format off
//
//   local header     "PK\3\4" version flags method time date crc csize size nlen xlen, name, extra
//   central entry    "PK\1\2" made-by version flags method time date crc csize size nlen xlen clen
//                    disk iattr xattr offset, name, extra, comment
//   data descriptor  "PK\7\8" crc csize(8) size(8), behind the data of an entry with flag bit 3
//   ZIP64 end        "PK\6\6" size(8) made-by version disk disk count(8) count(8) csize(8)
//                    coffset(8)
//   ZIP64 locator    "PK\6\7" disk end-offset(8) disks
//   end              "PK\5\6" disk disk count(2) count(2) csize(4) coffset(4) clen(2), comment
//
// clang-format on
//
// A 32-bit size or offset of 0xFFFFFFFF stands in an extra field: id 1, length, then the replaced
// fields at 8 bytes each in the order size, csize, offset. Written files are a function of their
// content: fixed times (1 January 1980), no attributes.
//
// An entry with a data descriptor has a local header that depends on its name and place alone: CRC
// and sizes are zero there (the sizes in the ZIP64 extra, which makes those of the descriptor 8
// bytes wide), and the truth stands behind the data and in the directory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace millrace::zip {

inline constexpr std::uint32_t kLocalSignature = 0x04034b50;
inline constexpr std::uint32_t kCentralSignature = 0x02014b50;
inline constexpr std::uint32_t kEnd64Signature = 0x06064b50;
inline constexpr std::uint32_t kLocator64Signature = 0x07064b50;
inline constexpr std::uint32_t kEndSignature = 0x06054b50;
inline constexpr std::uint32_t kDescriptorSignature = 0x08074b50;
inline constexpr std::uint16_t kDescriptorFlag = 0x8;
inline constexpr std::size_t kLocalBytes = 30, kCentralBytes = 46, kEnd64Bytes = 56,
                             kLocator64Bytes = 20, kEndBytes = 22, kDescriptorBytes = 24;
inline constexpr std::uint32_t kIn64 = 0xFFFFFFFF;

// A stored entry as it is written.
struct StoredEntry {
  std::string name;
  std::uint64_t header_offset = 0;
  std::uint64_t size = 0;
  std::uint32_t crc = 0;
  bool descriptor = false;
};

// Bytes a local header takes; with `alignment` above 1 the data after it starts at a multiple of
// that. The padding is an extra field "FB", as PyTorch's own writer does it.
std::uint64_t local_header_size(const StoredEntry& entry, std::uint64_t alignment);
void append_local_header(std::vector<std::byte>& out, const StoredEntry& entry,
                         std::uint64_t alignment);
// What follows the data of an entry with a descriptor; kDescriptorBytes long.
void append_descriptor(std::vector<std::byte>& out, const StoredEntry& entry);
std::uint64_t central_entry_size(const StoredEntry& entry);
void append_central_entry(std::vector<std::byte>& out, const StoredEntry& entry);
// The three end records. The ZIP64 pair is always written, so the size is fixed.
void append_end(std::vector<std::byte>& out, std::uint64_t entries, std::uint64_t directory_offset,
                std::uint64_t directory_size);

}  // namespace millrace::zip
