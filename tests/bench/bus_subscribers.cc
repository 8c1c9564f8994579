#include "tests/bench/bus_subscribers.h"

namespace millrace::bench {
namespace {

struct Counting final : VirtualHook {
  void on_step(const Step& step) override { count += step.iter; }
  std::int64_t count = 0;
};

}  // namespace

std::vector<std::unique_ptr<VirtualHook>> virtual_hooks(int count) {
  std::vector<std::unique_ptr<VirtualHook>> hooks;
  for (int i = 0; i < count; ++i) hooks.push_back(std::make_unique<Counting>());
  return hooks;
}

std::vector<std::function<void(const Step&)>> function_hooks(int count) {
  std::vector<std::function<void(const Step&)>> hooks;
  for (int i = 0; i < count; ++i) {
    hooks.push_back([n = std::make_shared<std::int64_t>(0)](const Step& s) { *n += s.iter; });
  }
  return hooks;
}

std::vector<PointerHook> pointer_hooks(int count) {
  std::vector<PointerHook> hooks;
  for (int i = 0; i < count; ++i) {
    hooks.push_back({[](void* n, const Step& s) { *static_cast<std::int64_t*>(n) += s.iter; },
                     new std::int64_t(0)});
  }
  return hooks;
}

std::vector<Subscription> subscribe(EventBus& bus, int inline_count, int awaited_count) {
  std::vector<Subscription> held;
  const int all = inline_count + awaited_count;
  for (int i = 0; i < all; ++i) {
    const int priority = (i * 37) % 101;
    // Evenly spread: one is awaited whenever awaited_count/all has summed up to a whole one.
    const bool is_awaited = (i + 1) * awaited_count / all != i * awaited_count / all;
    if (is_awaited) {
      auto call = [n = std::int64_t{0}](const Step& s) mutable -> Task<> {
        n += s.iter;
        co_return;
      };
      held.push_back(bus.subscribe(awaited_subscriber<Step>("awaited", priority, call)));
    } else {
      auto call = [n = std::int64_t{0}](const Step& s) mutable { n += s.iter; };
      held.push_back(bus.subscribe(inline_subscriber<Step>("inline", priority, call)));
    }
  }
  return held;
}

}  // namespace millrace::bench
