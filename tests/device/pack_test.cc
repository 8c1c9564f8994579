// pack() on the host and on the CPU device. The same cases run on the fake of the CUDA runtime
// (cuda_device_test.cc) and on a GPU (cuda_pack_test.cc).
#include "millrace/runtime/device/pack.h"

#include <gmock/gmock.h>

#include "millrace/runtime/device/cpu_device.h"
#include "millrace/runtime/device/device_error.h"
#include "tests/device/pack_vectors.h"

namespace millrace {
namespace {

using test::PackCase;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(Pack, EveryCaseOnTheHost) {
  for (const PackCase& each : test::pack_cases()) {
    std::vector<std::byte> buffer(each.buffer, PackCase::kUntouched);
    pack_on_host(each.table(each.source.data()), buffer.data());
    EXPECT_EQ(buffer, each.expected()) << each.name;
  }
}

TEST(Pack, EveryCaseOnTheCpuDevice) {
  CpuDevice device;
  for (const PackCase& each : test::pack_cases()) {
    EXPECT_EQ(test::packed_on(device, each), each.expected()) << each.name;
  }
  EXPECT_EQ(device.allocated(), 0u);
}

TEST(Pack, ALargePieceIsCut) {
  const auto memory = test::pack_source(2 * kPackPieceBytes + 5);
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{1}, kPackPieceBytes,
                                   kPackPieceBytes + 1, 2 * kPackPieceBytes + 5}) {
    std::vector<PackPiece> table;
    append_pieces(table, std::span(memory).first(size), 48);
    ASSERT_EQ(table.size(), pack_pieces(size));
    std::uint64_t at = 0;
    for (const PackPiece& piece : table) {
      EXPECT_EQ(piece.from, memory.data() + at);
      EXPECT_EQ(piece.offset, 48 + at);
      EXPECT_LE(piece.size, kPackPieceBytes);
      at += piece.size;
    }
    EXPECT_EQ(at, size);
  }
}

TEST(Pack, TheCpuDeviceRefusesMemoryItDidNotAllocate) {
  CpuDevice device, other;
  const auto stream = device.make_stream(StreamPriority::kNormal);
  auto buffer = device.allocate(100), table = device.allocate(2 * sizeof(PackPiece));
  const auto foreign = other.allocate(100);
  const std::span list(reinterpret_cast<const PackPiece*>(table->data()), 2);
  EXPECT_EQ(device.allocated(), 100 + 2 * sizeof(PackPiece));
  EXPECT_THROW(stream->pack(foreign->bytes(), list), std::logic_error);
  EXPECT_THROW(stream->pack({buffer->data(), 101}, list), std::logic_error);
  EXPECT_THROW(stream->pack(buffer->bytes(), {list.data(), 3}), std::logic_error);
  const PackPiece on_host[1] = {};
  EXPECT_THROW(stream->pack(buffer->bytes(), on_host), std::logic_error);
  table.reset();
  EXPECT_THROW(stream->pack(buffer->bytes(), list), std::logic_error) << "it was freed";
}

TEST(Pack, APieceThatLeavesTheBufferFailsTheCpuDevice) {
  for (const PackCase::Piece& bad : {PackCase::Piece{0, 60, 5}, {0, 65, 0}}) {
    CpuDevice device;
    PackCase each{"bad", test::pack_source(64)};
    each.pieces = {{0, 0, 64}, bad};
    EXPECT_THAT([&] { test::packed_on(device, each); },
                ThrowsMessage<DeviceError>(HasSubstr("outside of the buffer")));
  }
}

}  // namespace
}  // namespace millrace
