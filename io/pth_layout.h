// The byte layout of a .pth file as Millrace writes it: PyTorch's zip, every entry stored, every
// storage aligned to 64 bytes.
//
//   archive/data/0      local header (padded), the storage's bytes at a multiple of 64, descriptor
//   archive/data/1      ...                                                        } the storages
//   -------------------------------------------------------------- storages_end()
//   archive/data.pkl    the pickle
//   archive/byteorder   "little"
//   archive/version     "3\n"
//   archive/millrace/state  StateRecord (optional)                                 } the tail
//   central directory, ZIP64 end record and locator, end record
//
// The header of a storage depends on the sizes alone, and its CRC-32 follows the data (a
// descriptor, as PyTorch's own writer does it): a file can be written front to back while the state
// is copied, with the checksum taken on the way.
//
// Storages come first, so their offsets do not depend on the pickle; torch.load accepts data.pkl
// last, mmap=True too. The root folder is always "archive": the bytes do not depend on the file's
// name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace millrace {

class PthLayout {
 public:
  static constexpr std::uint64_t kAlignment = 64;
  static constexpr std::uint64_t kDescriptorBytes = 24;

  // Sizes of the storages in bytes, in file order; storage i is the entry data/<i>.
  explicit PthLayout(std::span<const std::uint64_t> storage_bytes);

  std::size_t storages() const noexcept { return entries_.size(); }
  std::uint64_t header_offset(std::size_t i) const { return entries_[i].header; }
  std::uint64_t data_offset(std::size_t i) const { return entries_[i].data; }
  std::uint64_t data_size(std::size_t i) const { return entries_[i].size; }
  std::uint64_t data_end(std::size_t i) const { return entries_[i].data + entries_[i].size; }
  // Behind the descriptor: where the next header, or the tail, starts.
  std::uint64_t end_offset(std::size_t i) const { return data_end(i) + kDescriptorBytes; }
  std::uint64_t storages_end() const noexcept { return storages_end_; }

  // Fills the bytes [header_offset(i), data_offset(i)).
  void write_header(std::size_t i, std::span<std::byte> out) const;
  // Fills the bytes [data_end(i), end_offset(i)) once the CRC-32 of the data is known.
  void write_descriptor(std::size_t i, std::uint32_t crc, std::span<std::byte> out) const;

  // Everything from storages_end() to the end of the file. `crcs` are those of the storages.
  // `extra` are further entries below the root, e.g. {"millrace/state", bytes}.
  // The tail's size depends on the sizes of its parts only, never on the CRCs.
  using NamedBytes = std::pair<std::string, std::vector<std::byte>>;
  std::vector<std::byte> make_tail(std::span<const std::uint32_t> crcs,
                                   std::span<const std::byte> data_pkl,
                                   std::span<const NamedBytes> extra) const;
  std::uint64_t tail_size(std::uint64_t data_pkl_size, std::span<const NamedBytes> extra) const;

 private:
  struct Entry {
    std::uint64_t header, data, size;
  };
  std::vector<Entry> entries_;
  std::uint64_t storages_end_ = 0;
};

}  // namespace millrace
