#include "millrace/io/unpickle_values.h"

#include <bit>
#include <cstdint>
#include <iterator>
#include <string>

#include "millrace/io/utf8.h"

namespace millrace::pickle {

void push_text(UnpickleMachine& machine, std::string_view text) {
  if (!is_utf8(text)) machine.in().corrupt("A string is not UTF-8.");
  machine.push(Value(text));
}

void push_old_string(UnpickleMachine& machine, std::string_view text) {
  if (is_utf8(text)) return machine.push(Value(text));
  machine.push(Value(Value::Data(Bytes{std::string(text)})));
}

void push_integer(UnpickleMachine& machine, std::string_view bytes) {
  const bool negative = !bytes.empty() && (static_cast<unsigned char>(bytes.back()) & 0x80) != 0;
  const char sign = negative ? '\xff' : '\0';
  // The shortest form: a last byte that only repeats the sign of the one before says nothing.
  while (bytes.size() > 1 && bytes.back() == sign &&
         ((static_cast<unsigned char>(bytes[bytes.size() - 2]) & 0x80) != 0) == negative) {
    bytes.remove_suffix(1);
  }
  if (bytes.size() > 8) return machine.push(Value(Value::Data(BigInt{std::string(bytes)})));
  std::uint64_t value = negative ? ~std::uint64_t{0} : 0;
  for (std::size_t i = bytes.size(); i > 0; --i) {
    value = value << 8 | static_cast<unsigned char>(bytes[i - 1]);
  }
  machine.push(Value(static_cast<std::int64_t>(value)));
}

void push_float(UnpickleMachine& machine) {
  std::uint64_t bits = 0;
  for (const char c : machine.in().take(8)) bits = bits << 8 | static_cast<unsigned char>(c);
  machine.push(Value(std::bit_cast<double>(bits)));
}

void push_tuple(UnpickleMachine& machine, std::size_t size) {
  std::vector<Value> items(size);
  for (std::size_t i = size; i > 0; --i) items[i - 1] = machine.pop();
  machine.push_node(Tuple{std::move(items)});
}

void add_items(UnpickleMachine& machine, std::vector<Value> items, bool to_set) {
  auto* const list = std::get_if<std::shared_ptr<List>>(&machine.top().data);
  auto* const set = std::get_if<std::shared_ptr<Set>>(&machine.top().data);
  auto* const call = std::get_if<std::shared_ptr<Call>>(&machine.top().data);
  std::vector<Value>* target = nullptr;
  if (list != nullptr && !to_set) target = &(*list)->items;
  if (set != nullptr && to_set) target = &(*set)->items;
  if (call != nullptr) target = &(*call)->items;
  if (target == nullptr) machine.in().corrupt("Items are added to what holds none.");
  if (target->empty()) {
    *target = std::move(items);
  } else {
    target->insert(target->end(), std::make_move_iterator(items.begin()),
                   std::make_move_iterator(items.end()));
  }
}

void add_pairs(UnpickleMachine& machine, std::vector<Value> flat) {
  auto* const dict = std::get_if<std::shared_ptr<Dict>>(&machine.top().data);
  auto* const call = std::get_if<std::shared_ptr<Call>>(&machine.top().data);
  if (dict == nullptr && call == nullptr) {
    machine.in().corrupt("Entries are added to what is no dict.");
  }
  if (flat.size() % 2 != 0) machine.in().corrupt("A key of a dict has no value.");
  auto& target = dict != nullptr ? (*dict)->items : (*call)->pairs;
  if (target.empty()) target.reserve(flat.size() / 2);
  for (std::size_t i = 0; i < flat.size(); i += 2) {
    target.emplace_back(std::move(flat[i]), std::move(flat[i + 1]));
  }
}

}  // namespace millrace::pickle
