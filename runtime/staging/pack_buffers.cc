#include "millrace/runtime/staging/pack_buffers.h"

#include <algorithm>
#include <cstring>

namespace millrace {
namespace {

constexpr std::uint64_t kPage = 4096;

void grow(Device& device, std::unique_ptr<DeviceBuffer>& buffer, std::uint64_t bytes) {
  if (buffer && buffer->size() >= bytes) return;
  buffer.reset();  // first: the two may not fit together
  buffer = device.allocate(bytes);
}

}  // namespace

std::uint64_t PackRoom::host_bytes() const noexcept {
  return (bytes + pieces * sizeof(PackPiece) + kPage - 1) / kPage * kPage;
}

PackRoom pack_room(std::span<const CapturedStorage> storages, std::uint64_t times,
                   std::uint64_t at_once) {
  PackRoom room;
  std::size_t count = 0;
  for (const CapturedStorage& storage : storages) {
    if (!is_packed(storage)) continue;
    ++count;
    room.bytes += times * pack_padded(storage.bytes.size());
    room.pieces += times * pack_pieces(storage.bytes.size());
  }
  room.at_once = std::min(room.bytes, at_once);
  return times * count < kLeastPacked ? PackRoom{} : room;
}

void PackBuffers::pin_for(Device& device) noexcept {
  release_host();
  device_buffer_.reset();
  device_table_.reset();
  device_ = &device;
  host_.pin_for(device);
}

void PackBuffers::reserve(const PackRoom& room) {
  release_host();
  if (room.pieces == 0) {
    device_buffer_.reset();
    device_table_.reset();
    return;
  }
  grow(*device_, device_buffer_, room.at_once);
  grow(*device_, device_table_, room.pieces * sizeof(PackPiece));
  host_.reserve(room.host_bytes());
  room_ = room;
}

void PackBuffers::release_host() noexcept {
  host_.release();
  room_ = {};
}

void PackBuffers::load(std::span<const PackPiece> table) {
  loaded_ = table.size();
  uploaded_ = false;
  if (table.empty()) return;
  std::memcpy(host(room_.bytes, table.size_bytes()).data(), table.data(), table.size_bytes());
}

void PackBuffers::upload(DeviceStream& copies) {
  if (uploaded_) return;
  copies.copy_to_device(device_table_->data(), host(room_.bytes, loaded_ * sizeof(PackPiece)));
  uploaded_ = true;
}

std::span<const PackPiece> PackBuffers::table(std::size_t first, std::size_t pieces) const {
  return std::span(reinterpret_cast<const PackPiece*>(device_table_->data()), loaded_)
      .subspan(first, pieces);
}

}  // namespace millrace
