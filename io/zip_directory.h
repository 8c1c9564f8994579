// Reads zip and ZIP64 archives, believing nothing: the end records must agree with each other and
// with the file's size; entries lie inside the file, before the directory, and do not overlap; no
// name occurs twice; a local header says what the directory says (a writer that used a data
// descriptor may have left zeros there, and then the descriptor says it). Entries are stored or
// deflated.
//
// Memory: about four times the directory's size, and what the caller asks to read. Blocking; I/O
// errors are the object's StorageError, bad bytes are a Fault.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "millrace/io/storage.h"
#include "millrace/runtime/async/error.h"

namespace millrace {

struct ZipEntry {
  std::string name;
  std::uint64_t header_offset = 0;
  std::uint64_t stored_size = 0;  // bytes in the file
  std::uint64_t size = 0;         // bytes of content
  std::uint64_t end_limit = 0;    // where the next entry or the directory starts
  std::uint32_t crc = 0;
  std::uint16_t flags = 0;
  bool deflated = false;
};

class ZipDirectory {
 public:
  // Kind::truncated when there is no end record, as in a file that was cut.
  static Result<ZipDirectory> read(const StoredObject& object, std::size_t max_entries);

  ZipDirectory(ZipDirectory&&) = default;
  ZipDirectory& operator=(ZipDirectory&&) = default;

  const std::vector<ZipEntry>& entries() const noexcept { return entries_; }  // directory order
  const ZipEntry* find(std::string_view name) const;

 private:
  ZipDirectory() = default;
  std::vector<ZipEntry> entries_;
  std::unordered_map<std::string_view, std::size_t> by_name_;  // views into entries_
};

// Where an entry's bytes start, after its local header was read and compared with the directory.
Result<std::uint64_t> locate_entry(const StoredObject& object, const ZipEntry& entry);

// Gives room for the next bytes of content: at least one, at most `size`. Called in order, for
// entry.size bytes in all.
using ZipRoom = std::function<std::span<std::byte>(std::size_t size)>;
// Reads an entry's content into what `room` gives, in pieces that stay in cache, and checks its
// size and, when `check_crc`, its CRC-32 and its data descriptor if it has one. Room is asked for
// bytes that are there, not for those promised. Returns the CRC-32 of the content.
Result<std::uint32_t> read_entry(const StoredObject& object, const ZipEntry& entry, bool check_crc,
                                 const ZipRoom& room);

}  // namespace millrace
