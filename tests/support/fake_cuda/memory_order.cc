#include "tests/support/fake_cuda/memory_order.h"

#include <algorithm>

namespace millrace::test {
namespace {

bool overlap(std::span<const std::byte> a, std::span<const std::byte> b) {
  return !a.empty() && !b.empty() && a.data() < b.data() + b.size() &&
         b.data() < a.data() + a.size();
}

std::uint64_t ticks(const Clock& clock, std::size_t stream) {
  return stream < clock.size() ? clock[stream] : 0;
}

void join(Clock& into, const Clock& other) {
  into.resize(std::max(into.size(), other.size()));
  for (std::size_t i = 0; i < other.size(); ++i) into[i] = std::max(into[i], other[i]);
}

}  // namespace

std::size_t MemoryOrder::add_stream() {
  streams_.emplace_back();
  return streams_.size() - 1;
}

Clock MemoryOrder::record(std::size_t stream) const { return streams_[stream]; }

void MemoryOrder::wait(std::size_t stream, const Clock& clock) { join(streams_[stream], clock); }

void MemoryOrder::observe(const Clock& clock) {
  join(host_, clock);
  std::erase_if(accesses_,
                [this](const Access& each) { return ticks(host_, each.stream) >= each.tick; });
}

std::string MemoryOrder::put_in(std::size_t stream, const std::string& name,
                                const std::vector<Use>& uses) {
  Clock& clock = streams_[stream];
  join(clock, host_);
  clock.resize(std::max(clock.size(), stream + 1));
  const std::uint64_t tick = ++clock[stream];
  std::string wrong;
  for (const Use& use : uses) {
    for (const Access& before : accesses_) {
      if (!(use.writes || before.use.writes) || !overlap(use.memory, before.use.memory)) continue;
      if (ticks(clock, before.stream) >= before.tick) continue;
      wrong = name + (use.writes ? " writes" : " reads") + " device memory that " + before.name +
              " may still be " + (before.use.writes ? "writing" : "reading");
    }
  }
  for (const Use& use : uses) accesses_.push_back({use, stream, tick, name});
  return wrong;
}

void MemoryOrder::forget(std::span<const std::byte> memory) {
  std::erase_if(accesses_, [&](const Access& each) { return overlap(each.use.memory, memory); });
}

}  // namespace millrace::test
