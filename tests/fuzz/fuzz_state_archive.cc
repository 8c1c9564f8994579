// Any bytes as the state of a hook: what a section of a state record holds.
#include <optional>

#include "tests/fuzz/invariant.h"
#include "tests/fuzz/nested_state.h"
#include "tests/io/support/allocation_meter.h"

using namespace millrace;
using fuzz::invariant;
using fuzz::NestedState;

namespace {

// A map's node with an empty string and an empty vector takes 16 bytes of input.
constexpr std::size_t kPerByte = 32, kConstant = 16'384;

std::optional<NestedState> decode(std::string_view bytes) {
  NestedState state;
  try {
    StateReader in(bytes);
    in(state);
    if (in.left() > 0) return std::nullopt;
  } catch (const RecordError&) {
    return std::nullopt;
  } catch (const cereal::Exception&) {
    return std::nullopt;
  }
  return state;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const test::AllocationMeter meter;
  const auto state = decode(bytes);
  invariant(meter.peak() <= kPerByte * size + kConstant, "memory in proportion to the input");
  if (!state) return 0;
  const std::string encoded = encode(*state);
  invariant(encoded.size() <= size, "a state is as long as what it says");
  const auto again = decode(encoded);
  invariant(again.has_value(), "what was decoded and encoded decodes");
  invariant(encode(*again).size() == encoded.size(), "and says as much");
  invariant(!decode(std::string_view(encoded).substr(0, encoded.size() - 1)), "a cut one does not");
  return 0;
}
