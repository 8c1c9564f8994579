// What the streams of the fake do to device memory, and whether anything orders it.
//
// Two operations on the same bytes, one of them a write, are ordered when they are on one stream,
// when a stream waits for an event between them, or when the host had seen the first one done
// before it put in the second. Anything else is a defect, whatever the schedule made of it: so it
// is found when the operation is put in, with every seed.
//
// Not synchronised: the fake's runtime guards it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace millrace::test {

// Device memory that an operation reads, or writes (and may read).
struct Use {
  std::span<const std::byte> memory;
  bool writes = false;
};

// By stream: how many of its operations come before a point.
using Clock = std::vector<std::uint64_t>;

class MemoryOrder {
 public:
  std::size_t add_stream();
  // What an event stands for that is recorded now.
  Clock record(std::size_t stream) const;
  void wait(std::size_t stream, const Clock& clock);
  // The host has seen an event reached.
  void observe(const Clock& clock);
  // The operation is put into the stream: what is wrong with it, or nothing.
  std::string put_in(std::size_t stream, const std::string& name, const std::vector<Use>& uses);
  // The memory is given back, or is new.
  void forget(std::span<const std::byte> memory);

 private:
  struct Access {
    Use use;
    std::size_t stream;
    std::uint64_t tick;
    std::string name;
  };
  std::vector<Clock> streams_;
  Clock host_;
  std::vector<Access> accesses_;  // those the host has not seen done
};

}  // namespace millrace::test
