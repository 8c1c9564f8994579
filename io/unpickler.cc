#include "millrace/io/unpickler.h"

#include <utility>

#include "millrace/io/unpickle_machine.h"
#include "millrace/io/unpickle_opcodes.h"

namespace millrace::pickle {

Result<Value> unpickle(std::span<const std::byte> bytes, const UnpickleLimits& limits,
                       std::size_t* consumed) {
  UnpickleMachine machine(bytes, limits);
  try {
    run_operations(machine);
    Value root = machine.finish();
    if (consumed != nullptr) {
      *consumed = machine.in().consumed();
    } else if (machine.in().consumed() != bytes.size()) {
      machine.in().corrupt("Bytes follow the end of the pickle.");
    }
    return root;
  } catch (Fault& fault) {
    return std::move(fault);
  }
}

}  // namespace millrace::pickle
