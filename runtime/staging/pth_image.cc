#include "millrace/runtime/staging/pth_image.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "millrace/io/crc32.h"
#include "millrace/io/sha256.h"

namespace millrace {

PthImage::PthImage(std::shared_ptr<Snapshot> snapshot, std::vector<std::byte> data_pkl,
                   std::vector<PthLayout::NamedBytes> extra)
    : snapshot_(std::move(snapshot)),
      layout_(snapshot_->layout()),
      data_pkl_(std::move(data_pkl)),
      extra_(std::move(extra)),
      size_(layout_.storages_end() + layout_.tail_size(data_pkl_.size(), extra_)) {
  crcs_.reserve(layout_.storages());
  snapshot_->attach_writer();
}

std::uint64_t PthImage::window() const {
  return snapshot_->streams() ? snapshot_->slices().block_bytes()
                              : std::numeric_limits<std::uint64_t>::max();
}

std::span<const std::byte> PthImage::wait(std::uint64_t first, std::uint64_t last) {
  if (snapshot_->streams() && (first != taken_ || last - first > window())) {
    throw std::logic_error("PthImage::wait: a streaming file is read once, in order, by blocks");
  }
  snapshot_->throw_if_discarded();
  snapshot_->release(first);
  complete_storages(std::min(last, layout_.storages_end()));
  if (last > layout_.storages_end()) complete_tail(first, last);
  // All that `last` covers has been copied, so what could be wrong with it is known.
  snapshot_->throw_if_discarded();
  taken_ = last;
  const auto piece = snapshot_->piece(first, last);
  return piece.size() == last - first ? piece : gather(first, last);
}

void PthImage::complete_storages(std::uint64_t last) {
  while (crcs_.size() < layout_.storages() && finish_part(last)) {
  }
}

// Header, data and descriptor of the current part as far as they begin before `last`; true when the
// part is complete. A header may reach into the next block, which is free when this one is asked
// for: a ring has at least two.
bool PthImage::finish_part(std::uint64_t last) {
  const std::size_t part = crcs_.size();
  const SliceTable& slices = snapshot_->slices();
  if (!has_header_) {
    if (layout_.header_offset(part) >= last) return false;
    scratch_.resize(layout_.data_offset(part) - layout_.header_offset(part));
    layout_.write_header(part, scratch_);
    snapshot_->fill(layout_.header_offset(part), scratch_);
    has_header_ = true;
  }
  for (; slice_ < slices.first(part + 1); ++slice_) {
    if (slices[slice_].file_offset >= last) return false;
    const std::size_t size = snapshot_->wait_slice(slice_).size();
    crc_ = crc32_combine(crc_, snapshot_->checksum(slice_), size);
  }
  if (layout_.data_end(part) >= last) return false;
  scratch_.resize(PthLayout::kDescriptorBytes);
  layout_.write_descriptor(part, crc_, scratch_);
  snapshot_->fill(layout_.data_end(part), scratch_);
  snapshot_->compare(part, crc_);
  crcs_.push_back(std::exchange(crc_, 0));
  has_header_ = false;
  return true;
}

void PthImage::complete_tail(std::uint64_t first, std::uint64_t last) {
  if (tail_.empty()) {
    tail_ = layout_.make_tail(crcs_, data_pkl_, extra_);
    tail_digest_ = sha256_hex(tail_);
  }
  first = std::max(first, layout_.storages_end());
  const auto bytes = std::span(tail_).subspan(first - layout_.storages_end(), last - first);
  snapshot_->fill(first, bytes);  // where there is no room, gather() takes it from tail_
}

std::span<const std::byte> PthImage::gather(std::uint64_t first, std::uint64_t last) {
  gathered_.reserve(last - first);
  const std::span<std::byte> out = gathered_.bytes().first(last - first);
  for (std::uint64_t done = first; done < last;) {
    const std::uint64_t end = layout_.storages_end();
    const auto bytes = done < end
                           ? snapshot_->piece(done, std::min(last, end))
                           : std::span<const std::byte>(tail_).subspan(done - end, last - done);
    std::memcpy(out.data() + (done - first), bytes.data(), bytes.size());
    done += bytes.size();
  }
  return out;
}

}  // namespace millrace
