// The bytes of a checkpoint file that is still being staged: the arena, and the tail that follows
// it. Used by one I/O thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "millrace/io/pth_layout.h"
#include "millrace/io/storage.h"
#include "millrace/runtime/engine/snapshot.h"

namespace millrace {

class PthImage final : public FileImage {
 public:
  // Throws CheckpointError when the tail exceeds the room behind the arena's storages.
  PthImage(std::shared_ptr<Snapshot> snapshot, std::vector<std::byte> data_pkl,
           std::vector<PthLayout::NamedBytes> extra);

  std::uint64_t size() const override { return size_; }
  std::span<const std::byte> wait(std::uint64_t first, std::uint64_t last) override;

 private:
  void write_tail();  // needs every CRC, so every part

  std::shared_ptr<Snapshot> snapshot_;
  std::vector<std::byte> data_pkl_;
  std::vector<PthLayout::NamedBytes> extra_;
  std::uint64_t size_;
  bool tail_written_ = false;
};

}  // namespace millrace
