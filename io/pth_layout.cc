#include "millrace/io/pth_layout.h"

#include <algorithm>
#include <stdexcept>

#include "millrace/io/crc32.h"
#include "millrace/io/zip_format.h"

namespace millrace {
namespace {

const std::string kRoot = "archive/";

struct Part {
  std::string name;
  std::uint64_t size;
  std::span<const std::byte> bytes;  // empty while only sizes matter
};

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::vector<Part> tail_parts(std::uint64_t pickle_size, std::span<const std::byte> pickle,
                             std::span<const PthLayout::NamedBytes> extra) {
  constexpr std::string_view kByteOrder = "little", kVersion = "3\n";
  std::vector<Part> parts{{kRoot + "data.pkl", pickle_size, pickle},
                          {kRoot + "byteorder", kByteOrder.size(), bytes_of(kByteOrder)},
                          {kRoot + "version", kVersion.size(), bytes_of(kVersion)}};
  for (const auto& [name, bytes] : extra) parts.push_back({kRoot + name, bytes.size(), bytes});
  return parts;
}

zip::StoredEntry storage_entry(std::size_t i, std::uint64_t header, std::uint64_t size,
                               std::uint32_t crc) {
  return {kRoot + "data/" + std::to_string(i), header, size, crc, true};
}

void fill(std::span<std::byte> out, const std::vector<std::byte>& bytes) {
  if (out.size() != bytes.size()) {
    throw std::logic_error("PthLayout: the room is not that of the header or descriptor");
  }
  std::copy(bytes.begin(), bytes.end(), out.begin());
}

static_assert(PthLayout::kDescriptorBytes == zip::kDescriptorBytes);

}  // namespace

PthLayout::PthLayout(std::span<const std::uint64_t> storage_bytes) {
  entries_.reserve(storage_bytes.size());
  for (std::size_t i = 0; i < storage_bytes.size(); ++i) {
    const auto entry = storage_entry(i, storages_end_, storage_bytes[i], 0);
    const std::uint64_t data = storages_end_ + zip::local_header_size(entry, kAlignment);
    if (__builtin_add_overflow(data + kDescriptorBytes, storage_bytes[i], &storages_end_) ||
        storages_end_ > UINT64_MAX / 2) {
      throw std::length_error("PthLayout: the storages exceed what a file can hold");
    }
    entries_.push_back({entry.header_offset, data, storage_bytes[i]});
  }
}

void PthLayout::write_header(std::size_t i, std::span<std::byte> out) const {
  const Entry& entry = entries_.at(i);
  std::vector<std::byte> header;
  zip::append_local_header(header, storage_entry(i, entry.header, entry.size, 0), kAlignment);
  fill(out, header);
}

void PthLayout::write_descriptor(std::size_t i, std::uint32_t crc, std::span<std::byte> out) const {
  const Entry& entry = entries_.at(i);
  std::vector<std::byte> descriptor;
  zip::append_descriptor(descriptor, storage_entry(i, entry.header, entry.size, crc));
  fill(out, descriptor);
}

std::vector<std::byte> PthLayout::make_tail(std::span<const std::uint32_t> crcs,
                                            std::span<const std::byte> data_pkl,
                                            std::span<const NamedBytes> extra) const {
  if (crcs.size() != entries_.size()) {
    throw std::logic_error("PthLayout::make_tail: one CRC for each storage is needed");
  }
  std::vector<zip::StoredEntry> directory;
  directory.reserve(entries_.size() + extra.size() + 3);
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    directory.push_back(storage_entry(i, entries_[i].header, entries_[i].size, crcs[i]));
  }
  std::vector<std::byte> out;
  out.reserve(tail_size(data_pkl.size(), extra));
  for (const Part& part : tail_parts(data_pkl.size(), data_pkl, extra)) {
    directory.push_back(
        {part.name, storages_end_ + out.size(), part.size, crc32(part.bytes), false});
    zip::append_local_header(out, directory.back(), 1);
    out.insert(out.end(), part.bytes.begin(), part.bytes.end());
  }
  const std::uint64_t directory_at = out.size();
  for (const auto& entry : directory) zip::append_central_entry(out, entry);
  zip::append_end(out, directory.size(), storages_end_ + directory_at, out.size() - directory_at);
  return out;
}

std::uint64_t PthLayout::tail_size(std::uint64_t data_pkl_size,
                                   std::span<const NamedBytes> extra) const {
  std::uint64_t size = 0, directory = 0;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    directory += zip::central_entry_size(storage_entry(i, entries_[i].header, entries_[i].size, 0));
  }
  for (const Part& part : tail_parts(data_pkl_size, {}, extra)) {
    const zip::StoredEntry entry{part.name, storages_end_ + size, part.size, 0, false};
    size += zip::local_header_size(entry, 1) + part.size;
    directory += zip::central_entry_size(entry);
  }
  return size + directory + zip::kEnd64Bytes + zip::kLocator64Bytes + zip::kEndBytes;
}

}  // namespace millrace
