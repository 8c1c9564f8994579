// Publishes n times to 16 inline subscribers; publish_instructions.sh counts its instructions.
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "millrace/events/event_bus.h"

namespace {

struct Tick {
  static constexpr std::string_view kName = "tick";
  const std::int64_t& iter;
};

}  // namespace

int main(int argc, char** argv) {
  const std::int64_t n = argc > 1 ? std::atoll(argv[1]) : 1000;
  millrace::EventBus bus;
  std::vector<std::int64_t> counts(16);
  std::vector<millrace::Subscription> held;
  for (int i = 0; i < 16; ++i) {
    auto call = [&count = counts[i]](const Tick& tick) { count += tick.iter; };
    held.push_back(bus.subscribe(millrace::inline_subscriber<Tick>("hook", i * 37 % 101, call)));
  }
  for (std::int64_t i = 1; i <= n; ++i) {
    if (!bus.publish(Tick{i}).await_ready()) return 1;
  }
  return counts[0] == n * (n + 1) / 2 ? 0 : 1;
}
