#include "millrace/io/unpickle_opcodes.h"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "millrace/io/unpickle_objects.h"
#include "millrace/io/unpickle_values.h"

namespace millrace::pickle {
namespace {

using Handler = void (*)(UnpickleMachine&);
using Handlers = std::array<Handler, 256>;

void check_protocol(UnpickleInput& in) {
  const std::uint64_t protocol = in.number(1);
  if (protocol > 5) {
    in.corrupt("The pickle has protocol " + std::to_string(protocol) + "; 5 is the newest known.");
  }
}

void add_numbers(Handlers& on) {
  on['N'] = [](UnpickleMachine& m) { m.push(Value()); };
  on[0x88] = [](UnpickleMachine& m) { m.push(Value(true)); };
  on[0x89] = [](UnpickleMachine& m) { m.push(Value(false)); };
  on['J'] = [](UnpickleMachine& m) {
    m.push(Value(
        std::int64_t{static_cast<std::int32_t>(static_cast<std::uint32_t>(m.in().number(4)))}));
  };
  on['K'] = [](UnpickleMachine& m) { m.push(Value(static_cast<std::int64_t>(m.in().number(1)))); };
  on['M'] = [](UnpickleMachine& m) { m.push(Value(static_cast<std::int64_t>(m.in().number(2)))); };
  on[0x8a] = [](UnpickleMachine& m) { push_integer(m, m.in().counted(1)); };
  on[0x8b] = [](UnpickleMachine& m) { push_integer(m, m.in().counted(4)); };
  on['G'] = [](UnpickleMachine& m) { push_float(m); };
}

void add_strings(Handlers& on) {
  on['X'] = [](UnpickleMachine& m) { push_text(m, m.in().counted(4)); };
  on[0x8c] = [](UnpickleMachine& m) { push_text(m, m.in().counted(1)); };
  on[0x8d] = [](UnpickleMachine& m) { push_text(m, m.in().counted(8)); };
  on['U'] = [](UnpickleMachine& m) { push_old_string(m, m.in().counted(1)); };
  on['T'] = [](UnpickleMachine& m) { push_old_string(m, m.in().counted(4)); };
  static constexpr auto bytes = [](std::string_view raw) {
    return Value(Value::Data(Bytes{std::string(raw)}));
  };
  on['C'] = [](UnpickleMachine& m) { m.push(bytes(m.in().counted(1))); };
  on['B'] = [](UnpickleMachine& m) { m.push(bytes(m.in().counted(4))); };
  on[0x8e] = [](UnpickleMachine& m) { m.push(bytes(m.in().counted(8))); };
  on[0x96] = [](UnpickleMachine& m) { wrap_call(m, "bytearray", bytes(m.in().counted(8))); };
}

void add_containers(Handlers& on) {
  on['('] = [](UnpickleMachine& m) { m.mark(); };
  on['0'] = [](UnpickleMachine& m) { m.pop_or_unmark(); };
  on['1'] = [](UnpickleMachine& m) { m.pop_to_mark(); };
  on['2'] = [](UnpickleMachine& m) { m.copy_top(); };
  on['}'] = [](UnpickleMachine& m) { m.push_node(Dict{}); };
  on[']'] = [](UnpickleMachine& m) { m.push_node(List{}); };
  on[')'] = [](UnpickleMachine& m) { m.push_node(Tuple{}); };
  on[0x8f] = [](UnpickleMachine& m) { m.push_node(Set{}); };
  on['t'] = [](UnpickleMachine& m) { m.push_node(Tuple{m.pop_to_mark()}); };
  on[0x85] = [](UnpickleMachine& m) { push_tuple(m, 1); };
  on[0x86] = [](UnpickleMachine& m) { push_tuple(m, 2); };
  on[0x87] = [](UnpickleMachine& m) { push_tuple(m, 3); };
  on['e'] = [](UnpickleMachine& m) { add_items(m, m.pop_to_mark(), false); };
  on[0x90] = [](UnpickleMachine& m) { add_items(m, m.pop_to_mark(), true); };
  on['a'] = [](UnpickleMachine& m) {
    std::vector<Value> item(1, m.pop());
    add_items(m, std::move(item), false);
  };
  on['u'] = [](UnpickleMachine& m) { add_pairs(m, m.pop_to_mark()); };
  on['s'] = [](UnpickleMachine& m) {
    std::vector<Value> pair(2);
    pair[1] = m.pop(), pair[0] = m.pop();
    add_pairs(m, std::move(pair));
  };
  on[0x91] = [](UnpickleMachine& m) { wrap_call(m, "frozenset", Value::list(m.pop_to_mark())); };
}

void add_objects(Handlers& on) {
  on[0x80] = [](UnpickleMachine& m) { check_protocol(m.in()); };
  on[0x95] = [](UnpickleMachine& m) { m.in().number(8); };  // FRAME only helps readers of streams
  on['.'] = [](UnpickleMachine& m) { m.stop(); };
  on['q'] = [](UnpickleMachine& m) { m.put(m.in().number(1)); };
  on['r'] = [](UnpickleMachine& m) { m.put(m.in().number(4)); };
  on[0x94] = [](UnpickleMachine& m) { m.put(m.memo_size()); };
  on['h'] = [](UnpickleMachine& m) { m.get(m.in().number(1)); };
  on['j'] = [](UnpickleMachine& m) { m.get(m.in().number(4)); };
  on['c'] = [](UnpickleMachine& m) {
    const std::string_view module = m.in().line();
    push_global(m, module, m.in().line());
  };
  on[0x93] = [](UnpickleMachine& m) { stack_global(m); };
  on['R'] = [](UnpickleMachine& m) { reduce(m, false); };
  on[0x81] = [](UnpickleMachine& m) { reduce(m, true); };
  on[0x92] = [](UnpickleMachine& m) { new_object_ex(m); };
  on['b'] = [](UnpickleMachine& m) { build(m); };
  on['Q'] = [](UnpickleMachine& m) { persistent_id(m); };
}

Handlers make_handlers() {
  Handlers on{};
  add_numbers(on);
  add_strings(on);
  add_containers(on);
  add_objects(on);
  return on;
}

}  // namespace

void run_operations(UnpickleMachine& machine) {
  static const Handlers on = make_handlers();
  while (!machine.stopped()) {
    const unsigned char opcode = machine.in().opcode();
    if (on[opcode] == nullptr) {
      machine.in().corrupt(
          "Operation " + std::to_string(opcode) +
          " is unknown here (the text forms of protocols 0 and 1, extension codes and buffers "
          "outside the pickle are not read).");
    }
    on[opcode](machine);
  }
}

}  // namespace millrace::pickle
