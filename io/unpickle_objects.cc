#include "millrace/io/unpickle_objects.h"

#include <cstddef>
#include <utility>
#include <vector>

#include "millrace/io/utf8.h"

namespace millrace::pickle {
namespace {

const Global* as_global(const Value& value) { return std::get_if<Global>(&value.data); }

bool names(const Value& value, std::string_view module, std::string_view name) {
  const Global* global = as_global(value);
  return global != nullptr && global->module == module && global->name == name;
}

bool names_builtin(const Value& value, std::string_view name) {
  return names(value, "__builtin__", name) || names(value, "builtins", name);
}

bool fold_pairs(UnpickleMachine& machine, const std::vector<Value>& items) {
  Value dict = Value::ordered_dict();
  Call call = *std::get<std::shared_ptr<Call>>(dict.data);
  machine.spend(items.size() * 2 * sizeof(Value));
  for (const Value& item : items) {
    const auto* pair = item.as_sequence();
    if (pair == nullptr || pair->size() != 2) return false;
    machine.spend_copy((*pair)[0]), machine.spend_copy((*pair)[1]);
    call.pairs.emplace_back((*pair)[0], (*pair)[1]);
  }
  machine.push_node(std::move(call));
  return true;
}

// True when the call is data in disguise and its value has been pushed.
bool fold(UnpickleMachine& machine, const Value& function, const std::vector<Value>& args) {
  if (names(function, "_codecs", "encode") && args.size() == 2 && args[0].as_string() != nullptr &&
      (args[1] == Value("latin1") || args[1] == Value("latin-1"))) {
    auto bytes = latin1_bytes(*args[0].as_string());
    if (!bytes) return false;
    machine.spend(bytes->size());
    machine.push(Value(Value::Data(Bytes{std::move(*bytes)})));
    return true;
  }
  if (names_builtin(function, "bytes") && args.empty()) {
    machine.push(Value(Value::Data(Bytes{})));
    return true;
  }
  const auto* list = args.size() == 1 ? std::get_if<std::shared_ptr<List>>(&args[0].data) : nullptr;
  if (list == nullptr) return false;
  if (names_builtin(function, "set")) {
    for (const Value& item : (*list)->items) machine.spend_copy(item);
    machine.spend((*list)->items.size() * sizeof(Value));
    machine.push_node(Set{(*list)->items});
    return true;
  }
  return names(function, "collections", "OrderedDict") && fold_pairs(machine, (*list)->items);
}

}  // namespace

void push_global(UnpickleMachine& machine, std::string_view module, std::string_view name) {
  if (!is_utf8(module) || !is_utf8(name)) machine.in().corrupt("A class name is not UTF-8.");
  machine.push(Value(Value::Data(Global{std::string(module), std::string(name)})));
}

void stack_global(UnpickleMachine& machine) {
  const Value name = machine.pop(), module = machine.pop();
  if (name.as_string() == nullptr || module.as_string() == nullptr) {
    machine.in().corrupt("A class name is not a string.");
  }
  // A dotted name (a method, a nested class) has no form of its own in protocol 2, which writes
  // getattr(Class, 'method').
  std::string_view path = *name.as_string();
  std::size_t dot = path.find('.');
  push_global(machine, *module.as_string(), path.substr(0, dot));
  while (dot != std::string_view::npos) {
    path.remove_prefix(dot + 1);
    dot = path.find('.');
    // Two bytes can fetch a name with a thousand dots from the memo.
    machine.spend(sizeof(Call) + 3 * sizeof(Value));
    Value owner = machine.pop();
    machine.push(Value(Value::Data(Global{"__builtin__", "getattr"})));
    machine.push_node(Tuple{{std::move(owner), Value(path.substr(0, dot))}});
    reduce(machine, false);
  }
}

void persistent_id(UnpickleMachine& machine) {
  Value id = machine.pop();
  // torch before 1.6 wrote ('module', class, file, source) for a module's class, once a file, and
  // reads it as the class.
  const auto* tuple = std::get_if<std::shared_ptr<Tuple>>(&id.data);
  if (tuple != nullptr && (*tuple)->items.size() == 4 && (*tuple)->items[0] == Value("module") &&
      as_global((*tuple)->items[1]) != nullptr) {
    machine.spend_copy((*tuple)->items[1]);
    return machine.push((*tuple)->items[1]);
  }
  machine.push_node(PersistentId{std::move(id)});
}

void reduce(UnpickleMachine& machine, bool new_object) {
  Value args = machine.pop(), function = machine.pop();
  const auto* tuple = std::get_if<std::shared_ptr<Tuple>>(&args.data);
  if (tuple == nullptr) machine.in().corrupt("The arguments of a call are not a tuple.");
  if (as_global(function) == nullptr &&
      !std::holds_alternative<std::shared_ptr<Call>>(function.data)) {
    machine.in().corrupt("A call names no function.");
  }
  if (!new_object && fold(machine, function, (*tuple)->items)) return;
  Call call;
  call.function = std::move(function);
  call.args = std::move(args);
  call.new_object = new_object;
  machine.push_node(std::move(call));
}

void new_object_ex(UnpickleMachine& machine) {
  Value keywords = machine.pop(), args = machine.pop(), type = machine.pop();
  machine.push(Value(Value::Data(Global{"copyreg", "__newobj_ex__"})));
  machine.push_node(Tuple{{std::move(type), std::move(args), std::move(keywords)}});
  reduce(machine, false);
}

void wrap_call(UnpickleMachine& machine, std::string name, Value argument) {
  machine.push(Value(Value::Data(Global{"__builtin__", std::move(name)})));
  machine.push_node(Tuple{{std::move(argument)}});
  reduce(machine, false);
}

void build(UnpickleMachine& machine) {
  Value state = machine.pop();
  auto* const call = std::get_if<std::shared_ptr<Call>>(&machine.top().data);
  if (call == nullptr) machine.in().corrupt("A state is given to what is no object.");
  if (!(*call)->state.is_none()) machine.in().corrupt("An object is given two states.");
  (*call)->state = std::move(state);
}

}  // namespace millrace::pickle
