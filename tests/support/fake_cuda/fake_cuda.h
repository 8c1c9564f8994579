// A CUDA runtime for tests: the entry points that runtime/device calls, linked in place of cudart.
//
// Every stream is a thread with delays drawn from a seed. The fake knows which memory is pinned,
// which is the device's, and what copies are under way, and notes as a violation what a real
// runtime lets pass or only makes slow:
//
//   - a copy from or to host memory that is not pinned, or of device memory it does not know
//   - pinned or device memory given back, or written by a second copy, while a copy is under way
//   - device memory used by two operations, one of them writing, that nothing orders; see
//     memory_order.h
//   - memory of another device than the stream's, of that which cudaMalloc made
//   - a wait for an event never recorded; a stream or an event used after it was destroyed
//   - a call that blocks on a thread that must not (forbid_waiting())
//   - an event that spins while it is waited for
//   - device memory made or freed on such a thread, or freed while something uses it
//   - a pack whose table, buffer or pieces are not the device's memory; one that overtakes a copy
//     or is overtaken by one, put in before it into another stream, of the same memory
//   - streams, events, pins or device memory left behind (at check())
//
// The host side of a copy is overwritten when the copy is put in, so that who reads it before the
// event sees rubbish. It fails calls: the n-th one, once or for ever after; and those that a real
// runtime refuses: memory pinned twice, an event or a launch on another device's stream.
//
// One at a time: it is the runtime while it lives. Any thread, but where it says otherwise.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tests/support/fake_cuda/memory_order.h"

namespace millrace::test {

// Streams that pass over every wait: a defect that must not stay unseen. Either those lent by
// stream(), or those that the code under test made.
enum class Deaf : std::uint8_t { kNone, kLent, kOwn };

struct FakeCudaOptions {
  std::uint32_t seed = 0;
  std::chrono::microseconds longest_delay{0};  // before each operation of a stream
  int devices = 1;
  int driver = 13000;  // 0: there is none
  // The n-th call from now on fails, counted from 1; 0: none. With `sticky` the device is lost: no
  // stream does anything further, and every later call fails alike.
  std::uint64_t failing_call = 0;
  cudaError_t error = cudaErrorInvalidValue;
  bool sticky = false;
  Deaf deaf = Deaf::kNone;
};

class FakeCuda {
 public:
  explicit FakeCuda(FakeCudaOptions options = {});
  ~FakeCuda();
  FakeCuda(const FakeCuda&) = delete;
  FakeCuda& operator=(const FakeCuda&) = delete;

  // What somebody else would have made: LibTorch's stream. Destroyed with the fake.
  cudaStream_t stream(int device = 0);
  // A kernel, and the device memory it is known to use. Must not throw.
  void launch(cudaStream_t stream, std::function<void()> kernel, const std::vector<Use>& uses = {});
  // Until the stream has done, or passed over, what it was given; no call of the runtime.
  void drain(cudaStream_t stream);
  // Memory of the device from now on.
  void own(std::span<std::byte> memory);
  void disown(std::span<std::byte> memory);
  // Whose memory it is, of that which cudaMalloc made; -1: nobody's.
  int device_of(std::span<const std::byte> memory) const;

  // This thread is a train thread until the fake or training ends: it must not block in a call.
  void forbid_waiting();
  void allow_waiting();

  std::vector<std::string> violations() const;
  // Those, and what is left behind; call it when everything was given back.
  std::vector<std::string> check() const;
  // Calls by name, and all of them.
  std::map<std::string, std::uint64_t> calls() const;
  std::uint64_t call_count() const;
  std::uint64_t pinned() const;  // bytes

  class Runtime;

 private:
  std::unique_ptr<Runtime> runtime_;
};

}  // namespace millrace::test
