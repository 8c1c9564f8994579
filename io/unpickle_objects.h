// The operations that name classes and make objects. None of them looks a name up: what Python
// would call becomes a Call node, and calls that are data in disguise are folded into that data
// (unpickler.h lists them). Operands come from the machine's stack, results go there; operands that
// do not fit throw through in().fail().
//
// Internal to the unpickler.
#pragma once

#include <string>
#include <string_view>

#include "millrace/io/unpickle_machine.h"

namespace millrace::pickle {

void push_global(UnpickleMachine& machine, std::string_view module, std::string_view name);
// STACK_GLOBAL: module and name are on the stack, and the name may have dots.
void stack_global(UnpickleMachine& machine);
void persistent_id(UnpickleMachine& machine);
// REDUCE, or NEWOBJ with `new_object`: function and arguments are on the stack.
void reduce(UnpickleMachine& machine, bool new_object);
// NEWOBJ_EX: class, arguments and keywords.
void new_object_ex(UnpickleMachine& machine);
// Calls the builtin of that name with one argument.
void wrap_call(UnpickleMachine& machine, std::string name, Value argument);
// BUILD: the state on top belongs to the object below it.
void build(UnpickleMachine& machine);

}  // namespace millrace::pickle
