// Any bytes as a pickle. What is read can be written, and is then what it was.
#include "millrace/io/pickler.h"
#include "millrace/io/unpickler.h"
#include "tests/fuzz/invariant.h"
#include "tests/io/support/allocation_meter.h"

using namespace millrace;
using fuzz::invariant;

namespace {

// As unpickler.h promises it, and what a map has when it is empty.
constexpr std::size_t kPerByte = 600, kConstant = 65'536;

void check_value(const pickle::Value& value) {
  const auto bytes = pickle::pickle(value);
  const auto again = pickle::unpickle(bytes);
  invariant(again.ok(), "what was read and written reads back");
  invariant(again.value() == value, "and is equal");
  // Sharing too: the bytes depend on the tree and its sharing alone.
  invariant(pickle::pickle(again.value()) == bytes, "and writes the same bytes");
  invariant(pickle::pickle(pickle::deep_copy(value)) == bytes, "a deep copy writes the same bytes");
  invariant(pickle::describe(value, 80).size() <= 128, "a description keeps its limit");
  (void)pickle::as_tensor(value);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = fuzz::bytes_of(data, size);
  const test::AllocationMeter meter;
  const auto value = pickle::unpickle(bytes);
  invariant(meter.peak() <= kPerByte * size + kConstant, "memory in proportion to the input");
  std::size_t consumed = 0;
  const auto first = pickle::unpickle(bytes, {}, &consumed);
  if (first) {
    invariant(consumed <= size, "no more was consumed than was there");
    invariant(value.ok() == (consumed == size), "without `consumed` nothing may follow");
    invariant(pickle::unpickle(bytes.first(consumed)).ok(), "and the rest does not matter");
    check_value(first.value());
  } else {
    invariant(!value.ok(), "what cannot be begun cannot be read");
  }
  return 0;
}
