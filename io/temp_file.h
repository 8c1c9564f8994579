// TempFile: the bytes of one object on their way to disk, under a temporary name.
//
// Used by one commit, on one I/O thread, in this order: create(), write(), sync(), close(); then
// the owner renames path(). Every step throws StorageError naming the call, the file and the object
// it was for. Nothing is cleaned up by itself: the owner calls abandon() after a failure, so that
// removing (which blocks) never happens in a destructor.
//
// Large files go past the page cache: O_DIRECT in blocks, straight from the image where its memory
// is aligned to 4 KiB, else through a buffer; a last partial page is padded with zeros and cut off
// by ftruncate. Where O_DIRECT is refused, at open or at the first write, the same blocks are
// written buffered, and at most two of them are dirty at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "millrace/io/file_ops.h"
#include "millrace/io/page_buffer.h"
#include "millrace/io/storage.h"

namespace millrace {

struct WriteOptions {
  std::uint64_t block_bytes = std::uint64_t{8} << 20;  // a multiple of 4096
  std::uint64_t direct_from = std::uint64_t{1} << 20;  // smaller files are written buffered
};

class TempFile {
 public:
  // `object` is the final path, for messages. `ops` outlives this.
  TempFile(FileOps& ops, WriteOptions options, std::string path, std::string object);
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;

  const std::string& path() const noexcept { return path_; }

  // Creates the file and reserves its blocks, so that a full disk is found before a byte is
  // written.
  void create(std::uint64_t size);
  // Asks the image block by block, once for each byte; what it throws passes through.
  void write(FileImage& image);
  // One attempt. After a failure the kernel may have dropped the pages, so the file is lost.
  void sync();
  void close();
  // Closes and removes the file if it exists. What cannot be removed is left to Storage::prepare().
  void abandon() noexcept;

 private:
  [[noreturn]] void fail(const char* operation, std::int64_t result) const;
  void write_direct(std::span<const std::byte> bytes, std::uint64_t offset);
  void write_bounced(std::span<const std::byte> bytes, std::uint64_t offset);
  void write_all(std::span<const std::byte> bytes, std::uint64_t offset);
  void flush_behind(std::uint64_t offset);
  void sync_range(std::uint64_t offset, bool wait);

  FileOps& ops_;
  const WriteOptions options_;
  const std::string path_, object_;
  std::uint64_t size_ = 0;
  std::uint64_t block_bytes_ = 0;  // of the writes; a multiple of 4096
  int fd_ = -1;
  bool exists_ = false;
  bool direct_ = false;
  bool padded_ = false;  // zeros were written behind the last byte
  PageBuffer bounce_;
};

}  // namespace millrace
