#include "millrace/runtime/engine/pth_image.h"

#include <cstring>
#include <string>
#include <utility>

#include "millrace/runtime/async/error.h"

namespace millrace {

PthImage::PthImage(std::shared_ptr<Snapshot> snapshot, std::vector<std::byte> data_pkl,
                   std::vector<PthLayout::NamedBytes> extra)
    : snapshot_(std::move(snapshot)), data_pkl_(std::move(data_pkl)), extra_(std::move(extra)) {
  const PthLayout& layout = snapshot_->layout();
  size_ = layout.storages_end() + layout.tail_size(data_pkl_.size(), extra_);
  if (size_ > snapshot_->arena().size()) {
    throw CheckpointError("", "its " + std::to_string(size_ - layout.storages_end()) +
                                  " bytes of values and hook states exceed the room for them");
  }
}

std::span<const std::byte> PthImage::wait(std::uint64_t first, std::uint64_t last) {
  if (last <= snapshot_->layout().storages_end()) return snapshot_->wait_bytes(first, last);
  if (!std::exchange(tail_written_, true)) write_tail();
  return snapshot_->arena().subspan(first, last - first);
}

void PthImage::write_tail() {
  snapshot_->wait_all();
  const PthLayout& layout = snapshot_->layout();
  const auto tail = layout.make_tail(snapshot_->crcs(), data_pkl_, extra_);
  std::memcpy(snapshot_->arena().data() + layout.storages_end(), tail.data(), tail.size());
}

}  // namespace millrace
