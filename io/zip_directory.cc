#include "millrace/io/zip_directory.h"

#include <algorithm>
#include <optional>

#include "millrace/io/zip_bytes.h"
#include "millrace/io/zip_format.h"

namespace millrace {
namespace zip {

std::optional<std::span<const std::byte>> find_extra64(std::span<const std::byte> extra) {
  std::span<const std::byte> found;
  bool seen = false;
  Cursor fields(extra);
  while (fields.left() > 0) {
    const std::uint16_t id = fields.u16(), size = fields.u16();
    const auto content = fields.take(size);
    if (!fields.ok() || (id == 1 && seen)) return std::nullopt;
    if (id == 1) found = content, seen = true;
  }
  return found;
}

}  // namespace zip

namespace {

constexpr std::uint64_t kMaxDirectoryBytes = std::uint64_t{256} << 20;
// Deflate cannot do better than this.
constexpr std::uint64_t kMaxRatio = 1032;

struct Extent {
  std::uint64_t entries = 0, offset = 0, size = 0;
};

Fault corrupt(std::string where, std::string what) {
  return {Fault::Kind::corrupt, std::move(where), std::move(what)};
}

std::vector<std::byte> read_at(const StoredObject& object, std::uint64_t offset,
                               std::uint64_t size) {
  std::vector<std::byte> bytes(size);
  object.read(offset, bytes);
  return bytes;
}

// The offset of the end record: the last one whose comment ends with the file.
std::optional<std::uint64_t> find_end(std::span<const std::byte> tail) {
  if (tail.size() < zip::kEndBytes) return std::nullopt;
  for (std::size_t at = tail.size() - zip::kEndBytes + 1; at-- > 0;) {
    zip::Cursor record(tail.subspan(at));
    if (record.u32() != zip::kEndSignature) continue;
    record.take(16);
    if (record.u16() == record.left()) return at;
  }
  return std::nullopt;
}

// A field of the end record must be the ZIP64 one, or the mark that says "look there".
bool agree(std::uint64_t narrow, std::uint64_t wide, std::uint64_t mark) {
  return narrow == wide || narrow == mark;
}

Result<Extent> read_end64(const StoredObject& object, std::uint64_t locator_at,
                          std::span<const std::byte> locator_bytes, const Extent& plain) {
  zip::Cursor locator(locator_bytes);
  locator.take(8);
  const std::uint64_t at = locator.u64();
  if (locator_at < zip::kEnd64Bytes || at != locator_at - zip::kEnd64Bytes) {
    return corrupt("zip64 locator", "The zip's ZIP64 end record is not where its locator says.");
  }
  const auto bytes = read_at(object, at, zip::kEnd64Bytes);
  zip::Cursor record(bytes);
  const std::uint32_t signature = record.u32();
  const std::uint64_t size = record.u64();
  record.take(4);
  const std::uint64_t disks = record.u64(), here = record.u64();
  Extent extent{record.u64(), 0, 0};
  extent.size = record.u64();
  extent.offset = record.u64();
  if (signature != zip::kEnd64Signature || size != zip::kEnd64Bytes - 12 || disks != 0 ||
      here != extent.entries || !agree(plain.entries, extent.entries, 0xFFFF) ||
      !agree(plain.size, extent.size, zip::kIn64) ||
      !agree(plain.offset, extent.offset, zip::kIn64)) {
    return corrupt("zip64 end record", "The zip's end records contradict each other.");
  }
  if (extent.size > at || extent.offset != at - extent.size) {
    return corrupt("zip64 end record",
                   "The zip's directory does not end where its end record starts.");
  }
  return extent;
}

Result<Extent> read_end(const StoredObject& object) {
  const std::uint64_t file = object.size();
  const std::uint64_t window =
      std::min<std::uint64_t>(file, zip::kLocator64Bytes + zip::kEndBytes + 0xFFFF);
  const auto tail = read_at(object, file - window, window);
  const auto at = find_end(tail);
  if (!at) {
    return Fault{Fault::Kind::truncated, "byte " + std::to_string(file),
                 "The zip has no end record: the file was cut short."};
  }
  zip::Cursor record(std::span<const std::byte>(tail).subspan(*at));
  record.take(4);
  const std::uint32_t disks = record.u32();
  const std::uint16_t here = record.u16();
  Extent extent{record.u16(), 0, 0};
  extent.size = record.u32();
  extent.offset = record.u32();
  if (disks != 0 || here != extent.entries) {
    return corrupt("zip end record", "The zip claims to span several disks.");
  }
  const std::uint64_t end_at = file - window + *at;
  if (*at >= zip::kLocator64Bytes) {
    const auto locator = std::span(tail).subspan(*at - zip::kLocator64Bytes, zip::kLocator64Bytes);
    if (zip::Cursor(locator).u32() == zip::kLocator64Signature) {
      return read_end64(object, end_at - zip::kLocator64Bytes, locator, extent);
    }
  }
  if (extent.size > end_at || extent.offset != end_at - extent.size) {
    return corrupt("zip end record",
                   "The zip's directory does not end where its end record starts.");
  }
  return extent;
}

// Replaces the fields that stand in the ZIP64 extra. False when it lacks one.
bool widen(std::span<const std::byte> extra, ZipEntry& entry) {
  const auto found = zip::find_extra64(extra);
  if (!found) return false;
  zip::Cursor wide(*found);
  for (std::uint64_t* field : {&entry.size, &entry.stored_size, &entry.header_offset}) {
    if (*field == zip::kIn64) *field = wide.u64();
  }
  return wide.ok();
}

Result<ZipEntry> read_central(zip::Cursor& in) {
  ZipEntry entry;
  const std::uint32_t signature = in.u32();
  in.take(4);
  entry.flags = in.u16();
  const std::uint16_t method = in.u16();
  in.take(4);
  entry.crc = in.u32();
  entry.stored_size = in.u32();
  entry.size = in.u32();
  const std::uint16_t name_size = in.u16(), extra_size = in.u16(), comment_size = in.u16();
  const std::uint16_t disk = in.u16();
  in.take(6);
  entry.header_offset = in.u32();
  const auto name = in.take(name_size);
  const auto extra = in.take(extra_size);
  in.take(comment_size);
  if (!in.ok() || signature != zip::kCentralSignature || disk != 0 || name.empty()) {
    return corrupt("zip directory", "The zip's directory is damaged.");
  }
  entry.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
  if (!widen(extra, entry)) {
    return corrupt(entry.name, "The entry's extra fields are damaged.");
  }
  if ((entry.flags & 0x2041) != 0) return corrupt(entry.name, "The entry is encrypted.");
  if (method != 0 && method != 8) {
    return corrupt(entry.name, "The entry is compressed by method " + std::to_string(method) +
                                   "; only stored and deflated entries are read.");
  }
  entry.deflated = method == 8;
  if (!entry.deflated && entry.size != entry.stored_size) {
    return corrupt(entry.name, "The entry is stored, but its two sizes differ.");
  }
  if (entry.deflated && entry.size / kMaxRatio > entry.stored_size) {
    return corrupt(entry.name, "The entry claims to expand more than deflate can.");
  }
  return entry;
}

// Entries in the order of the file must not reach into each other. Sets their limits.
std::optional<Fault> check_extents(std::vector<ZipEntry>& entries, std::uint64_t directory_offset) {
  std::vector<ZipEntry*> order;
  order.reserve(entries.size());
  for (ZipEntry& entry : entries) order.push_back(&entry);
  std::sort(order.begin(), order.end(),
            [](auto* a, auto* b) { return a->header_offset > b->header_offset; });
  std::uint64_t limit = directory_offset;
  for (ZipEntry* entry : order) {
    std::uint64_t least = zip::kLocalBytes + entry->name.size();
    if (entry->header_offset > limit || __builtin_add_overflow(least, entry->stored_size, &least) ||
        least > limit - entry->header_offset) {
      return corrupt(entry->name,
                     "The entry reaches into the next one or past the end of the file.");
    }
    entry->end_limit = limit;
    limit = entry->header_offset;
  }
  return std::nullopt;
}

}  // namespace

Result<ZipDirectory> ZipDirectory::read(const StoredObject& object, std::size_t max_entries) {
  const auto extent = read_end(object);
  if (!extent) return extent.fault();
  const Extent& found = extent.value();
  if (found.entries > max_entries || found.size > kMaxDirectoryBytes) {
    return Fault{Fault::Kind::limit, "zip directory",
                 "The zip holds " + std::to_string(found.entries) + " entries; the limit is " +
                     std::to_string(max_entries) + "."};
  }
  if (found.entries > found.size / zip::kCentralBytes) {
    return corrupt("zip directory", "The zip's directory is too short for its entries.");
  }
  const auto bytes = read_at(object, found.offset, found.size);
  zip::Cursor in(bytes);
  ZipDirectory directory;
  directory.entries_.reserve(found.entries);
  for (std::uint64_t i = 0; i < found.entries; ++i) {
    auto entry = read_central(in);
    if (!entry) return entry.fault();
    directory.entries_.push_back(std::move(entry.value()));
  }
  if (in.left() > 0)
    return corrupt("zip directory", "The zip's directory holds more than its entries.");
  if (auto fault = check_extents(directory.entries_, found.offset)) return *std::move(fault);
  for (std::size_t i = 0; i < directory.entries_.size(); ++i) {
    const ZipEntry& entry = directory.entries_[i];
    if (!directory.by_name_.emplace(entry.name, i).second) {
      return corrupt(entry.name, "The zip holds two entries of this name.");
    }
  }
  return directory;
}

const ZipEntry* ZipDirectory::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

}  // namespace millrace
