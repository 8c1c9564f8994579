#include "millrace/io/pickle_value.h"

#include <cmath>
#include <set>
#include <stdexcept>

#include "millrace/io/pickle_walk.h"

namespace millrace::pickle {
namespace {

using Pairs = std::vector<std::pair<Value, Value>>;

template <class Node>
Node* node_as(const Value& value) {
  const auto* held = std::get_if<std::shared_ptr<Node>>(&value.data);
  return held != nullptr ? held->get() : nullptr;
}

bool is_mapping_class(const Value& function) {
  const auto* global = std::get_if<Global>(&function.data);
  return global != nullptr && global->module == "collections" &&
         (global->name == "OrderedDict" || global->name == "defaultdict" ||
          global->name == "Counter");
}

Pairs* pairs_of(const Value& value) {
  if (Dict* dict = node_as<Dict>(value)) return &dict->items;
  Call* call = node_as<Call>(value);
  if (call != nullptr && (!call->pairs.empty() || is_mapping_class(call->function))) {
    return &call->pairs;
  }
  return nullptr;
}

// The last of equal keys counts, as when Python adds one after the other.
Value* find_in(Pairs& pairs, const Value& key) {
  for (auto entry = pairs.rbegin(); entry != pairs.rend(); ++entry) {
    if (entry->first == key) return &entry->second;
  }
  return nullptr;
}

bool equal_plain(const Value& a, const Value& b) {
  const auto* x = std::get_if<double>(&a.data);
  const auto* y = std::get_if<double>(&b.data);
  if (x != nullptr && y != nullptr && std::isnan(*x) && std::isnan(*y)) return true;
  return a.data == b.data;
}

bool equal_shape(const Value& a, const Value& b) {
  const Call* x = node_as<Call>(a);
  const Call* y = node_as<Call>(b);
  if (x == nullptr || y == nullptr) return true;
  return x->new_object == y->new_object && x->items.size() == y->items.size() &&
         x->pairs.size() == y->pairs.size();
}

}  // namespace

Value Value::list(std::vector<Value> items) {
  return Value(Data(std::make_shared<List>(List{std::move(items)})));
}

Value Value::tuple(std::vector<Value> items) {
  return Value(Data(std::make_shared<Tuple>(Tuple{std::move(items)})));
}

Value Value::dict() { return Value(Data(std::make_shared<Dict>())); }

Value Value::ordered_dict() {
  auto call = std::make_shared<Call>();
  call->function = Value(Data(Global{"collections", "OrderedDict"}));
  call->args = tuple({});
  return Value(Data(std::move(call)));
}

std::optional<bool> Value::as_bool() const {
  if (const bool* value = std::get_if<bool>(&data)) return *value;
  return std::nullopt;
}

std::optional<std::int64_t> Value::as_int() const {
  if (const auto* value = std::get_if<std::int64_t>(&data)) return *value;
  if (const bool* value = std::get_if<bool>(&data)) return *value ? 1 : 0;
  return std::nullopt;
}

std::optional<double> Value::as_double() const {
  if (const auto* value = std::get_if<double>(&data)) return *value;
  if (const auto value = as_int()) return static_cast<double>(*value);
  return std::nullopt;
}

const std::string* Value::as_string() const { return std::get_if<std::string>(&data); }

const std::vector<Value>* Value::as_sequence() const {
  if (const List* list = node_as<List>(*this)) return &list->items;
  if (const Tuple* tuple = node_as<Tuple>(*this)) return &tuple->items;
  if (const Set* set = node_as<Set>(*this)) return &set->items;
  return nullptr;
}

const Pairs* Value::as_mapping() const { return pairs_of(*this); }

const Value* Value::find(const Value& key) const {
  Pairs* pairs = pairs_of(*this);
  return pairs != nullptr ? find_in(*pairs, key) : nullptr;
}

Value* Value::find(const Value& key) {
  return const_cast<Value*>(static_cast<const Value*>(this)->find(key));
}

void Value::set(Value key, Value value) {
  Pairs* pairs = pairs_of(*this);
  if (pairs == nullptr) throw std::logic_error("Value::set: not a mapping: " + describe(*this));
  if (Value* known = find_in(*pairs, key)) {
    *known = std::move(value);
  } else {
    pairs->emplace_back(std::move(key), std::move(value));
  }
}

bool Value::erase(const Value& key) {
  Pairs* pairs = pairs_of(*this);
  return pairs != nullptr &&
         std::erase_if(*pairs, [&](const auto& entry) { return entry.first == key; }) > 0;
}

void Value::append(Value value) {
  List* list = node_as<List>(*this);
  if (list == nullptr) throw std::logic_error("Value::append: not a list: " + describe(*this));
  list->items.push_back(std::move(value));
}

bool Value::operator==(const Value& other) const {
  if (node_of(*this) == nullptr) return equal_plain(*this, other);
  // Pairs of nodes are compared once: without that, shared nodes would be compared once per path.
  std::set<std::pair<const void*, const void*>> compared;
  std::vector<std::pair<const Value*, const Value*>> pending{{this, &other}};
  while (!pending.empty()) {
    const auto [a, b] = pending.back();
    pending.pop_back();
    if (a->data.index() != b->data.index()) return false;
    if (node_of(*a) == nullptr) {
      if (!equal_plain(*a, *b)) return false;
      continue;
    }
    if (node_of(*a) == node_of(*b)) continue;
    if (!compared.emplace(node_of(*a), node_of(*b)).second) continue;
    if (!equal_shape(*a, *b)) return false;
    const std::size_t first = pending.size();
    std::size_t mates = 0;
    for_each_child(*a, [&](const Value& child) { pending.emplace_back(&child, nullptr); });
    for_each_child(*b, [&](const Value& child) {
      if (first + mates < pending.size()) pending[first + mates].second = &child;
      ++mates;
    });
    if (first + mates != pending.size()) return false;
  }
  return true;
}

void set_attribute(Value& object, std::string_view name, Value value) {
  Call* call = node_as<Call>(object);
  if (call == nullptr) throw std::logic_error("set_attribute: not an object: " + describe(object));
  if (call->state.is_none()) call->state = Value::dict();
  call->state.set(name, std::move(value));
}

const Value* attribute(const Value& object, std::string_view name) {
  const Call* call = node_as<Call>(object);
  if (call == nullptr) return nullptr;
  if (const Value* found = call->state.find(name)) return found;
  // A class with __slots__ has the state (dict or None, slots).
  const Tuple* both = node_as<Tuple>(call->state);
  if (both == nullptr || both->items.size() != 2) return nullptr;
  const Value* found = both->items[0].find(name);
  return found != nullptr ? found : both->items[1].find(name);
}

}  // namespace millrace::pickle
