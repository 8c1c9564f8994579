#include "millrace/runtime/staging/device_plan.h"

#include <utility>

namespace millrace {

DevicePlan::DevicePlan(std::shared_ptr<const SliceTable> table, std::uint64_t chunk_bytes,
                       const PackRoom& room)
    : table_(std::move(table)), chunk_bytes_(chunk_bytes), chunk_of_(table_->size(), kNone) {
  if (table_->block_bytes() > 0) {
    add_through_ring();
    return;
  }
  add_all(Mutation::kAnyTime, room);
  any_time_chunks_ = chunks_.size();
  add_all(Mutation::kBehindGate, room);
}

void DevicePlan::add_through_ring() {
  for (std::size_t id = 0; id < table_->size(); ++id) {
    const CapturedStorage& storage = table_->storages()[(*table_)[id].storage];
    add(id, !storage.on_device || storage.mutation == Mutation::kAnyTime);
  }
  close_chunk();
}

void DevicePlan::add_all(Mutation mutation, const PackRoom& room) {
  pack_all(mutation, room);
  for (std::size_t id = 0; id < table_->size(); ++id) {
    const CapturedStorage& storage = table_->storages()[(*table_)[id].storage];
    if (!storage.on_device || storage.mutation != mutation) continue;
    if (chunk_of_[id] == kNone) add(id, false);
  }
  close_chunk();
}

void DevicePlan::pack_all(Mutation mutation, const PackRoom& room) {
  std::vector<std::size_t> small;  // slices: a storage of this size is one
  for (std::size_t id = 0; id < table_->size(); ++id) {
    const CapturedStorage& storage = table_->storages()[(*table_)[id].storage];
    if (storage.mutation == mutation && is_packed(storage)) small.push_back(id);
  }
  if (small.size() < kLeastPacked) return;
  for (const std::size_t id : small) add_packed(id, room);
  close_chunk();
}

void DevicePlan::add_packed(std::size_t slice, const PackRoom& room) {
  const Slice& next = (*table_)[slice];
  const std::uint64_t padded = pack_padded(next.size);
  if (padded > room.at_once || packed_bytes_ + padded > room.bytes ||
      pieces_.size() + pack_pieces(next.size) > room.pieces) {
    return;
  }
  if (open_pack_.size + padded > room.at_once) close_chunk();
  if (open_pack_.pieces == 0) open_pack_ = {pieces_.size(), 0, packed_bytes_, 0};
  const auto id = static_cast<std::uint32_t>(slice);
  copies_.push_back({id, id + 1, next.size, false, open_pack_.size});
  append_pieces(pieces_, table_->storages()[next.storage].bytes, open_pack_.size);
  open_pack_.pieces = pieces_.size() - open_pack_.first_piece;
  open_pack_.size += padded;
  packed_bytes_ += padded;
  open_bytes_ += next.size;
  chunk_of_[slice] = static_cast<std::uint32_t>(chunks_.size());
}

void DevicePlan::add(std::size_t slice, bool from_side) {
  const Slice& next = (*table_)[slice];
  const std::uint64_t block = table_->block_bytes();
  if (open_bytes_ >= chunk_bytes_ ||
      (block > 0 && open_bytes_ > 0 && !copies_.empty() &&
       (*table_)[slice - 1].file_offset / block != next.file_offset / block)) {
    close_chunk();
  }
  // Slices of one storage follow each other in memory and in the file.
  const bool goes_on = open_bytes_ > 0 && copies_.back().end_slice == slice &&
                       (*table_)[slice - 1].storage == next.storage;
  if (!goes_on) {
    copies_.push_back(
        {static_cast<std::uint32_t>(slice), static_cast<std::uint32_t>(slice), 0, from_side, 0});
  }
  copies_.back().end_slice = static_cast<std::uint32_t>(slice + 1);
  copies_.back().size += next.size;
  open_bytes_ += next.size;
  chunk_of_[slice] = static_cast<std::uint32_t>(chunks_.size());
}

void DevicePlan::close_chunk() {
  if (open_bytes_ > 0) chunks_.push_back({copies_.size(), open_pack_});
  open_bytes_ = 0;
  open_pack_ = {};
}

std::span<const DeviceCopy> DevicePlan::chunk(std::size_t i) const {
  const std::size_t first = i > 0 ? chunks_[i - 1].end : 0;
  return std::span(copies_).subspan(first, chunks_[i].end - first);
}

std::uint64_t DevicePlan::file_end(std::size_t chunk) const {
  const Slice& last = (*table_)[copies_[chunks_[chunk].end - 1].end_slice - 1];
  return last.file_offset + last.size;
}

}  // namespace millrace
