// The operations that make plain values and fill containers. Each takes what it needs from the
// arguments and the machine's stack, leaves its result on the stack, and throws through in().fail()
// when the operands do not fit.
//
// Internal to the unpickler.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "millrace/io/unpickle_machine.h"

namespace millrace::pickle {

void push_text(UnpickleMachine& machine, std::string_view text);
// A str of Python 2 may be text or bytes, and nothing in the file tells which: text if it is UTF-8.
void push_old_string(UnpickleMachine& machine, std::string_view text);
// Little-endian two's complement of any length; a BigInt in its shortest form beyond int64.
void push_integer(UnpickleMachine& machine, std::string_view bytes);
// The next eight bytes of the input, big-endian.
void push_float(UnpickleMachine& machine);
// Of the topmost `size` values.
void push_tuple(UnpickleMachine& machine, std::size_t size);

// To the list (or the set, with `to_set`) or the called object on top of the stack.
void add_items(UnpickleMachine& machine, std::vector<Value> items, bool to_set);
// Keys and values in turn, to the dict or the called object on top of the stack.
void add_pairs(UnpickleMachine& machine, std::vector<Value> flat);

}  // namespace millrace::pickle
