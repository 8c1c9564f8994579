// The kernel behind DeviceStream::pack() on a GPU, as a plain function: CudaStream calls it,
// pack.cu compiles it. Who tests the calls on a fake runtime links a fake of this, too, because
// compiled kernels need the real one.
#pragma once

#include <cstddef>

#include "millrace/runtime/device/pack.h"

struct CUstream_st;  // a cudaStream_t points to it; no header of CUDA reaches this one's users

namespace millrace {

// Puts one launch into the stream, which belongs to the current device. `table`, `to` and what the
// pieces name lie in that device's memory; the table is read when the launch runs. Returns the
// cudaError_t of the launch, and does not clear it. No pieces: nothing is launched.
int launch_pack(const PackPiece* table, std::size_t pieces, std::byte* to, CUstream_st* stream);

}  // namespace millrace
