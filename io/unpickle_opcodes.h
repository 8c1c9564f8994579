// The table from opcode to operation: the binary operations of protocols 2 to 5.
//
// Internal to the unpickler. The table is built once and never changes, so any thread may use it.
#pragma once

#include "millrace/io/unpickle_machine.h"

namespace millrace::pickle {

// Carries out the operations of the machine's input up to and with STOP. An opcode that has no
// entry, and whatever an operation refuses, throws through in().fail().
void run_operations(UnpickleMachine& machine);

}  // namespace millrace::pickle
