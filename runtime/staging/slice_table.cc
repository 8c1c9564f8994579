#include "millrace/runtime/staging/slice_table.h"

#include <limits>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace millrace {
namespace {

PthLayout layout_of(std::span<const CapturedStorage> storages) {
  std::vector<std::uint64_t> sizes;
  sizes.reserve(storages.size());
  for (const CapturedStorage& storage : storages) sizes.push_back(storage.bytes.size());
  return PthLayout(sizes);
}

bool same(const CapturedStorage& a, const CapturedStorage& b) {
  return a.bytes.data() == b.bytes.data() && a.bytes.size() == b.bytes.size() &&
         a.mutation == b.mutation && a.group == b.group && a.on_device == b.on_device;
}

}  // namespace

SliceTable::SliceTable(std::vector<CapturedStorage> storages, std::uint64_t block_bytes)
    : storages_(std::move(storages)), layout_(layout_of(storages_)), block_bytes_(block_bytes) {
  first_.reserve(storages_.size() + 1);
  slices_.reserve(storages_.size() + layout_.storages_end() / kSliceBytes);
  for (std::size_t i = 0; i < storages_.size(); ++i) cut(i);
  first_.push_back(slices_.size());
  if (slices_.size() > std::numeric_limits<std::uint32_t>::max()) {
    throw std::length_error("SliceTable: more slices than can be counted");
  }
  copy_order_.reserve(slices_.size());
  if (block_bytes_ > 0) {
    copy_order_.resize(slices_.size());
    std::iota(copy_order_.begin(), copy_order_.end(), 0U);
  } else {
    order_groups();
  }
  sort_by_address();
}

void SliceTable::cut(std::size_t storage) {
  first_.push_back(slices_.size());
  const std::uint64_t size = storages_[storage].bytes.size();
  for (std::uint64_t offset = 0; offset < size;) {
    const std::uint64_t at = layout_.data_offset(storage) + offset;
    std::uint64_t length = std::min(kSliceBytes, size - offset);
    if (block_bytes_ > 0) length = std::min(length, block_bytes_ - at % block_bytes_);
    slices_.push_back(
        {static_cast<std::uint32_t>(storage), static_cast<std::uint32_t>(length), offset, at});
    offset += length;
  }
}

void SliceTable::order_groups() {
  for (std::size_t first = 0; first < storages_.size();) {
    std::size_t last = first + 1;
    const auto in_group = [&](std::size_t i) {
      return storages_[first].group != 0 && storages_[i].group == storages_[first].group;
    };
    while (last < storages_.size() && in_group(last)) ++last;
    for (std::size_t k = 0, added = 1; added > 0; ++k) {
      added = 0;
      for (std::size_t i = first; i < last; ++i) {
        if (first_[i] + k >= first_[i + 1]) continue;
        copy_order_.push_back(static_cast<std::uint32_t>(first_[i] + k));
        ++added;
      }
    }
    first = last;
  }
}

void SliceTable::sort_by_address() {
  for (std::size_t i = 0; i < storages_.size(); ++i) {
    const auto bytes = storages_[i].bytes;
    if (bytes.empty() || storages_[i].mutation == Mutation::kAnyTime) continue;
    by_address_.push_back({bytes.data(), bytes.data() + bytes.size(), nullptr, i});
  }
  std::sort(by_address_.begin(), by_address_.end(),
            [](const LiveRange& a, const LiveRange& b) { return a.first < b.first; });
  const std::byte* reach = nullptr;
  for (LiveRange& range : by_address_) range.reach = reach = std::max(reach, range.last);
}

bool SliceTable::describes(std::span<const CapturedStorage> storages,
                           std::uint64_t block_bytes) const {
  return block_bytes == block_bytes_ &&
         std::equal(storages.begin(), storages.end(), storages_.begin(), storages_.end(), same);
}

std::vector<SliceTable::LiveRange>::const_iterator SliceTable::first_reaching(
    const std::byte* address) const {
  return std::upper_bound(
      by_address_.begin(), by_address_.end(), address,
      [](const std::byte* value, const LiveRange& range) { return value < range.reach; });
}

std::size_t SliceTable::slice_at(std::size_t storage, std::uint64_t offset) const {
  const auto first = slices_.begin() + static_cast<std::ptrdiff_t>(first_[storage]);
  const auto last = slices_.begin() + static_cast<std::ptrdiff_t>(first_[storage + 1]);
  const auto after = std::upper_bound(
      first, last, offset, [](std::uint64_t value, const Slice& s) { return value < s.offset; });
  return static_cast<std::size_t>(after - slices_.begin()) - 1;
}

}  // namespace millrace
