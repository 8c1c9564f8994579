// The I/O pool: the threads that write, hash, unlink and upload while training goes on.
//
// Its threads run at low CPU and I/O priority, so that they take what the step leaves. They copy
// bytes and call system functions; they never call a LibTorch operation. Jobs start in submission
// order; with more than one thread they may overlap. Owned by the host or by run(); several runners
// may share one.
#pragma once

#include <stdlib.h>  // before Asio, whose allocator depends on the library's macros

#include <asio/any_io_executor.hpp>
#include <cstddef>
#include <memory>
#include <string>

namespace millrace {

class IoPool {
 public:
  struct Options {
    std::size_t threads = 2;
    bool low_priority = true;  // nice 10 and the lowest best-effort I/O level; failures are ignored
    std::string name = "mr-io";  // thread names are <name>-<index>
  };

  IoPool();
  explicit IoPool(const Options& options);
  // Joins the threads. Every job must have finished: the runner awaits its I/O before it returns.
  ~IoPool();
  IoPool(const IoPool&) = delete;
  IoPool& operator=(const IoPool&) = delete;

  asio::any_io_executor executor() const;
  std::size_t threads() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace
