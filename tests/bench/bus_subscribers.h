// The subscribers of bus_bench, in a translation unit of their own so that no side can inline them.
// Every subscriber increments a counter of its own, whatever way it is called.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "millrace/events/event_bus.h"

namespace millrace::bench {

struct Step {
  static constexpr std::string_view kName = "step";
  const std::int64_t& iter;
};

// The compiler must take it that somebody reads the event.
inline void escape(const Step& step) { asm volatile("" : : "g"(&step) : "memory"); }

struct VirtualHook {
  virtual ~VirtualHook() = default;
  virtual void on_step(const Step& step) = 0;
};

struct PointerHook {
  void (*call)(void* self, const Step& step);
  void* self;
};

std::vector<std::unique_ptr<VirtualHook>> virtual_hooks(int count);
std::vector<std::function<void(const Step&)>> function_hooks(int count);
std::vector<PointerHook> pointer_hooks(int count);  // never freed: the bench ends with them

// Priorities are shuffled. The awaited ones are spread among the inline ones.
std::vector<Subscription> subscribe(EventBus& bus, int inline_count, int awaited_count);

}  // namespace millrace::bench
