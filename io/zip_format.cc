#include "millrace/io/zip_format.h"

#include <algorithm>
#include <stdexcept>

namespace millrace::zip {
namespace {

constexpr std::uint64_t kPlainVersion = 20, kVersion64 = 45;
constexpr std::uint64_t kTime = 0, kDate = 0x21;
constexpr std::uint64_t kMadeBy = 45;  // of 4.5, on the plainest file system
constexpr std::uint64_t kExtra64 = 1, kExtraPadding = 0x4246;
constexpr std::uint64_t kExtraHead = 4;

void put(std::vector<std::byte>& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<std::byte>(value >> (8 * i)));
}

void put(std::vector<std::byte>& out, std::string_view text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  out.insert(out.end(), data, data + text.size());
}

bool large(std::uint64_t value) { return value >= kIn64; }
std::uint64_t narrow(std::uint64_t value) { return large(value) ? kIn64 : value; }

// A local header has both sizes in its ZIP64 extra, or none.
std::uint64_t local_extra64(const StoredEntry& entry) {
  return large(entry.size) || entry.descriptor ? kExtraHead + 16 : 0;
}

std::uint64_t central_extra64(const StoredEntry& entry) {
  const std::uint64_t fields =
      (large(entry.size) ? 2U : 0U) + (large(entry.header_offset) ? 1U : 0U);
  return fields == 0 ? 0 : kExtraHead + 8 * fields;
}

// The fields that both headers have, version to name length.
void put_shared_fields(std::vector<std::byte>& out, const StoredEntry& entry, std::uint32_t crc,
                       std::uint64_t size) {
  if (entry.name.size() > 0xFFFF) throw std::logic_error("zip: a name above 65,535 bytes");
  const bool is64 = large(entry.size) || large(entry.header_offset) || entry.descriptor;
  put(out, is64 ? kVersion64 : kPlainVersion, 2);
  put(out, entry.descriptor ? kDescriptorFlag : 0, 2);
  put(out, 0, 2);  // method: stored
  put(out, kTime, 2);
  put(out, kDate, 2);
  put(out, crc, 4);
  put(out, size, 4);
  put(out, size, 4);
  put(out, entry.name.size(), 2);
}

}  // namespace

std::uint64_t local_header_size(const StoredEntry& entry, std::uint64_t alignment) {
  const std::uint64_t plain = kLocalBytes + entry.name.size() + local_extra64(entry);
  if (alignment <= 1) return plain;
  const std::uint64_t data = entry.header_offset + plain + kExtraHead;
  return plain + kExtraHead + (alignment - data % alignment) % alignment;
}

void append_local_header(std::vector<std::byte>& out, const StoredEntry& entry,
                         std::uint64_t alignment) {
  const std::uint64_t extra64 = local_extra64(entry);
  const std::uint64_t extra = local_header_size(entry, alignment) - kLocalBytes - entry.name.size();
  put(out, kLocalSignature, 4);
  put_shared_fields(out, entry, entry.descriptor ? 0 : entry.crc, extra64 > 0 ? kIn64 : entry.size);
  put(out, extra, 2);
  put(out, entry.name);
  if (extra64 > 0) {
    put(out, kExtra64, 2);
    put(out, extra64 - kExtraHead, 2);
    const std::uint64_t size = entry.descriptor ? 0 : entry.size;
    put(out, size, 8);
    put(out, size, 8);
  }
  if (extra == extra64) return;
  const std::uint64_t padding = extra - extra64 - kExtraHead;
  put(out, kExtraPadding, 2);
  put(out, padding, 2);
  out.insert(out.end(), padding, std::byte{'Z'});
}

void append_descriptor(std::vector<std::byte>& out, const StoredEntry& entry) {
  put(out, kDescriptorSignature, 4);
  put(out, entry.crc, 4);
  put(out, entry.size, 8);
  put(out, entry.size, 8);
}

std::uint64_t central_entry_size(const StoredEntry& entry) {
  return kCentralBytes + entry.name.size() + central_extra64(entry);
}

void append_central_entry(std::vector<std::byte>& out, const StoredEntry& entry) {
  const std::uint64_t extra64 = central_extra64(entry);
  put(out, kCentralSignature, 4);
  put(out, kMadeBy, 2);
  put_shared_fields(out, entry, entry.crc, narrow(entry.size));
  put(out, extra64, 2);
  put(out, 0, 2);  // comment
  put(out, 0, 2);  // disk
  put(out, 0, 2);  // internal attributes
  put(out, 0, 4);  // external attributes
  put(out, narrow(entry.header_offset), 4);
  put(out, entry.name);
  if (extra64 == 0) return;
  put(out, kExtra64, 2);
  put(out, extra64 - kExtraHead, 2);
  if (large(entry.size)) put(out, entry.size, 8), put(out, entry.size, 8);
  if (large(entry.header_offset)) put(out, entry.header_offset, 8);
}

void append_end(std::vector<std::byte>& out, std::uint64_t entries, std::uint64_t directory_offset,
                std::uint64_t directory_size) {
  put(out, kEnd64Signature, 4);
  put(out, kEnd64Bytes - 12, 8);
  put(out, kMadeBy, 2);
  put(out, kVersion64, 2);
  put(out, 0, 4);
  put(out, 0, 4);
  put(out, entries, 8);
  put(out, entries, 8);
  put(out, directory_size, 8);
  put(out, directory_offset, 8);
  put(out, kLocator64Signature, 4);
  put(out, 0, 4);
  put(out, directory_offset + directory_size, 8);
  put(out, 1, 4);
  put(out, kEndSignature, 4);
  put(out, 0, 2);
  put(out, 0, 2);
  put(out, std::min<std::uint64_t>(entries, 0xFFFF), 2);
  put(out, std::min<std::uint64_t>(entries, 0xFFFF), 2);
  put(out, narrow(directory_size), 4);
  put(out, narrow(directory_offset), 4);
  put(out, 0, 2);
}

}  // namespace millrace::zip
