#include <cuda_runtime.h>

#include <algorithm>

#include "millrace/runtime/device/cuda_pack.h"

namespace millrace {
namespace {

constexpr unsigned kWarp = 32;
constexpr unsigned kThreads = 256;
// Enough to fill any GPU; with more pieces each warp takes several.
constexpr std::size_t kMostBlocks = 4096;

__device__ void copy_bytes(std::byte* to, const std::byte* from, std::uint64_t first,
                           std::uint64_t size, unsigned lane) {
  for (std::uint64_t i = first + lane; i < size; i += kWarp) to[i] = from[i];
}

// By the lanes of one warp. Neighbouring lanes touch neighbouring words.
__device__ void copy_piece(std::byte* to, const std::byte* from, std::uint64_t size,
                           unsigned lane) {
  const auto addresses =
      reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from);
  if (addresses % kPackAlignment != 0) return copy_bytes(to, from, 0, size, lane);
  static_assert(sizeof(uint4) == kPackAlignment);
  auto* const words = reinterpret_cast<uint4*>(to);
  const auto* const source = reinterpret_cast<const uint4*>(from);
  const std::uint64_t count = size / sizeof(uint4);
  for (std::uint64_t i = lane; i < count; i += kWarp) words[i] = source[i];
  copy_bytes(to, from, count * sizeof(uint4), size, lane);
}

__global__ void pack_kernel(const PackPiece* table, std::size_t pieces, std::byte* to) {
  const unsigned lane = threadIdx.x % kWarp;
  const std::size_t warps = std::size_t{gridDim.x} * (kThreads / kWarp);
  const std::size_t first = std::size_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;
  for (std::size_t i = first; i < pieces; i += warps) {
    const PackPiece piece = table[i];
    copy_piece(to + piece.offset, piece.from, piece.size, lane);
  }
}

}  // namespace

// cudaLaunchKernel returns what the launch itself failed with; after <<<>>> one would have to take
// an error off the runtime's record that may be somebody else's.
int launch_pack(const PackPiece* table, std::size_t pieces, std::byte* to, CUstream_st* stream) {
  if (pieces == 0) return cudaSuccess;
  constexpr std::size_t kPiecesPerBlock = kThreads / kWarp;
  const std::size_t blocks =
      std::min(kMostBlocks, (pieces + kPiecesPerBlock - 1) / kPiecesPerBlock);
  void* arguments[] = {&table, &pieces, &to};
  return cudaLaunchKernel(reinterpret_cast<const void*>(&pack_kernel),
                          dim3(static_cast<unsigned>(blocks)), dim3(kThreads), arguments, 0,
                          stream);
}

}  // namespace millrace
