// The buses of others, as bus_bench drives them: hooks that increment a counter of their own, as
// ours do. In a translation unit of their own, so that nothing is inlined into the benchmark.
#pragma once

#include <cstdint>
#include <memory>

namespace millrace::bench {

class PeerSignal {
 public:
  virtual ~PeerSignal() = default;
  virtual void emit(std::int64_t n) = 0;  // n times, each with an event of its own
};

std::unique_ptr<PeerSignal> boost_signal(int hooks);
std::unique_ptr<PeerSignal> boost_signal_unlocked(int hooks);  // for one thread only
std::unique_ptr<PeerSignal> sigc_signal(int hooks);

}  // namespace millrace::bench
