// What tests on a GPU need of LibTorch's CUDA without its headers.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace millrace::test {

// LibTorch throws, in this process, for an operation that waits for the device, while one lives.
class ForbidSync {
 public:
  ForbidSync();
  ~ForbidSync();
  ForbidSync(const ForbidSync&) = delete;
  ForbidSync& operator=(const ForbidSync&) = delete;
};

// Not, while one lives; then as before.
class AllowSync {
 public:
  AllowSync();
  ~AllowSync();
  AllowSync(const AllowSync&) = delete;
  AllowSync& operator=(const AllowSync&) = delete;

 private:
  int before_;
};

// Blocks until the whole device is idle.
std::vector<std::byte> read_device(std::span<const std::byte> memory);

}  // namespace millrace::test
