// The bytes of a checkpoint file that is still being staged: headers, data, descriptors and tail.
// Used by one I/O thread.
//
// The file is completed front to back: what wait() is asked for, and everything before it, gets its
// headers and checksums then, in one pass over bytes that were just copied. While the snapshot
// streams, wait() is asked once for every byte, in order.
//
// A discarded snapshot makes wait() throw SnapshotDiscarded, always before the directory is handed
// out, so that no file can be committed from it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "millrace/io/pth_layout.h"
#include "millrace/io/storage.h"
#include "millrace/runtime/staging/arena.h"
#include "millrace/runtime/staging/snapshot.h"

namespace millrace {

class PthImage final : public FileImage {
 public:
  // From here on the snapshot has a writer: who makes an image of one that streams either reads it
  // to the end or abandons the snapshot.
  PthImage(std::shared_ptr<Snapshot> snapshot, std::vector<std::byte> data_pkl,
           std::vector<PthLayout::NamedBytes> extra);

  std::uint64_t size() const override { return size_; }
  // SHA-256, hex, of what stands behind the storages: with the directory in it, of every CRC-32.
  // Once the whole image was read.
  const std::string& tail_digest() const noexcept { return tail_digest_; }
  std::span<const std::byte> wait(std::uint64_t first, std::uint64_t last) override;
  bool rereadable() const override { return snapshot_->rereadable(); }
  std::uint64_t window() const override;

 private:
  void complete_storages(std::uint64_t last);
  void complete_tail(std::uint64_t first, std::uint64_t last);
  bool finish_part(std::uint64_t last);
  std::span<const std::byte> gather(std::uint64_t first, std::uint64_t last);

  const std::shared_ptr<Snapshot> snapshot_;
  const PthLayout& layout_;
  const std::vector<std::byte> data_pkl_;
  const std::vector<PthLayout::NamedBytes> extra_;
  const std::uint64_t size_;
  std::uint64_t taken_ = 0;  // streaming: the end of what was handed out

  // Where the pass over the storages is: inside part crcs_.size(), before slice slice_.
  std::vector<std::uint32_t> crcs_;
  bool has_header_ = false;
  std::size_t slice_ = 0;
  std::uint32_t crc_ = 0;
  std::vector<std::byte> scratch_;  // a header, a descriptor

  std::vector<std::byte> tail_;
  std::string tail_digest_;
  Arena gathered_;  // what does not lie in the arena in one piece
};

}  // namespace millrace
