// Ranges on the time line of a profiler that understands NVTX (Nsight Systems), nested, of the
// calling thread. Next to nothing while no tool listens, and nothing in a build without CUDA
// (nvtx_absent.cc).
#pragma once

namespace millrace {

// The name is copied.
void push_nvtx_range(const char* name);
void pop_nvtx_range();

}  // namespace millrace
