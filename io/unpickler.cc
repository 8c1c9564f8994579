#include "millrace/io/unpickler.h"

#include <array>
#include <bit>
#include <cstdint>
#include <deque>
#include <tuple>
#include <unordered_map>

#include "millrace/io/pickle_walk.h"
#include "millrace/io/utf8.h"

namespace millrace::pickle {
namespace {

// Holds every node made, until the tree is known to be shallow and free of cycles. Without it a
// hostile pickle could leak (a cycle) or overflow the stack (a destructor a million levels deep).
class NodeArena {
 public:
  NodeArena() = default;
  NodeArena(const NodeArena&) = delete;
  NodeArena& operator=(const NodeArena&) = delete;
  ~NodeArena() {
    if (!sound_) take_apart();
  }

  template <class Node>
  std::shared_ptr<Node> make() {
    return std::get<std::deque<std::shared_ptr<Node>>>(nodes_).emplace_back(
        std::make_shared<Node>());
  }
  void declare_sound() { sound_ = true; }

  template <class Visit>
  void for_each(Visit visit) const {
    std::apply([&](const auto&... kind) { (each(kind, visit), ...); }, nodes_);
  }

 private:
  template <class Nodes, class Visit>
  static void each(const Nodes& nodes, Visit& visit) {
    for (const auto& node : nodes) visit(Value(Value::Data(node)));
  }
  // Emptying a node only drops counts, as the arena still holds what it pointed at.
  void take_apart() {
    std::apply(
        [](auto&... kind) {
          const auto empty = [](auto& nodes) {
            for (auto& node : nodes) *node = {};
          };
          (empty(kind), ...);
        },
        nodes_);
  }

  std::tuple<std::deque<std::shared_ptr<List>>, std::deque<std::shared_ptr<Tuple>>,
             std::deque<std::shared_ptr<Set>>, std::deque<std::shared_ptr<Dict>>,
             std::deque<std::shared_ptr<PersistentId>>, std::deque<std::shared_ptr<Call>>>
      nodes_;
  bool sound_ = false;
};

const Global* as_global(const Value& value) { return std::get_if<Global>(&value.data); }

bool names(const Value& value, std::string_view module, std::string_view name) {
  const Global* global = as_global(value);
  return global != nullptr && global->module == module && global->name == name;
}

bool names_builtin(const Value& value, std::string_view name) {
  return names(value, "__builtin__", name) || names(value, "builtins", name);
}

class Unpickler {
 public:
  Unpickler(std::span<const std::byte> in, const UnpickleLimits& limits)
      : in_(in), limits_(limits) {}

  Value run();
  std::size_t consumed() const { return at_; }

  // Thrown inside this file only, and caught in unpickle().
  [[noreturn]] void fail(Fault::Kind kind, std::string what) const {
    throw Fault{kind, "pickle byte " + std::to_string(opcode_at_), std::move(what)};
  }
  [[noreturn]] void corrupt(std::string what) const { fail(Fault::Kind::corrupt, std::move(what)); }

  // Input.
  std::string_view take(std::uint64_t size);
  std::uint64_t number(int bytes);
  std::string_view line();

  // Stack. Nothing reaches below the innermost mark.
  void push(Value value);
  Value pop();
  Value& top();
  std::vector<Value> pop_to_mark();
  void mark() { marks_.push_back(stack_.size()); }
  void pop_or_unmark();

  // Memo.
  void put(std::uint64_t place);
  void get(std::uint64_t place);
  void copy_top() { spend_copy(top()), push(Value(top())); }
  std::uint64_t memo_size() const { return memo_.size(); }

  // Values.
  template <class Node>
  void push_node(Node content) {
    auto node = arena_.make<Node>();
    *node = std::move(content);
    push(Value(Value::Data(std::move(node))));
  }
  void push_text(std::string_view text);
  void push_old_string(std::string_view text);
  void push_integer(std::string_view bytes);
  void push_tuple(std::size_t size);
  void push_float();
  void push_global(std::string_view module, std::string_view name);
  void stack_global();
  void persistent_id();
  void add_items(std::vector<Value> items, bool to_set);
  void add_pairs(std::vector<Value> flat);
  void reduce(bool new_object);
  void new_object_ex();
  void wrap_call(std::string name, Value argument);
  void build();
  void check_protocol();
  void stop() { stopped_ = true; }

 private:
  bool fold(const Value& function, const std::vector<Value>& args);
  bool fold_pairs(const std::vector<Value>& items);
  void spend_copy(const Value& value);
  void spend(std::uint64_t bytes);
  void check_tree();

  std::span<const std::byte> in_;
  UnpickleLimits limits_;
  NodeArena arena_;  // first, so that it outlives what points into it
  std::size_t at_ = 0, opcode_at_ = 0;
  std::deque<Value> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint64_t, Value> memo_;
  std::size_t values_ = 0;
  std::uint64_t copied_ = 0;
  bool stopped_ = false;
};

std::string_view Unpickler::take(std::uint64_t size) {
  if (size > in_.size() - at_) {
    fail(Fault::Kind::truncated, "The pickle ends inside an item of " + std::to_string(size) +
                                     " bytes; " + std::to_string(in_.size() - at_) + " are left.");
  }
  const auto* first = reinterpret_cast<const char*>(in_.data()) + at_;
  at_ += size;
  return {first, static_cast<std::size_t>(size)};
}

std::uint64_t Unpickler::number(int bytes) {
  std::uint64_t value = 0;
  const std::string_view raw = take(static_cast<std::uint64_t>(bytes));
  for (int i = bytes - 1; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(raw[i]);
  return value;
}

std::string_view Unpickler::line() {
  const std::string_view rest(reinterpret_cast<const char*>(in_.data()) + at_, in_.size() - at_);
  const std::size_t end = rest.find('\n');
  if (end == std::string_view::npos) fail(Fault::Kind::truncated, "The pickle ends inside a name.");
  at_ += end + 1;
  return rest.substr(0, end);
}

void Unpickler::push(Value value) {
  if (++values_ > limits_.max_values) {
    fail(Fault::Kind::limit,
         "The pickle holds more than " + std::to_string(limits_.max_values) + " values.");
  }
  stack_.push_back(std::move(value));
}

Value& Unpickler::top() {
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) {
    corrupt("An operation finds nothing on the stack.");
  }
  return stack_.back();
}

Value Unpickler::pop() {
  Value value = std::move(top());
  stack_.pop_back();
  return value;
}

std::vector<Value> Unpickler::pop_to_mark() {
  if (marks_.empty()) corrupt("An operation finds no mark on the stack.");
  const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
  std::vector<Value> items(std::make_move_iterator(first), std::make_move_iterator(stack_.end()));
  stack_.erase(first, stack_.end());
  marks_.pop_back();
  return items;
}

void Unpickler::pop_or_unmark() {
  if (!marks_.empty() && marks_.back() == stack_.size()) {
    marks_.pop_back();
  } else {
    pop();
  }
}

void Unpickler::spend(std::uint64_t bytes) {
  copied_ += bytes;
  if (copied_ / 64 > in_.size() + 1024) {
    fail(Fault::Kind::limit,
         "The pickle repeats its strings until they are 64 times its own size.");
  }
}

void Unpickler::spend_copy(const Value& value) {
  if (const auto* text = std::get_if<std::string>(&value.data)) spend(text->size());
  if (const auto* bytes = std::get_if<Bytes>(&value.data)) spend(bytes->data.size());
  if (const auto* number = std::get_if<BigInt>(&value.data)) spend(number->bytes.size());
  if (const Global* global = as_global(value)) spend(global->module.size() + global->name.size());
}

void Unpickler::put(std::uint64_t place) {
  spend_copy(top());
  memo_.insert_or_assign(place, top());
}

void Unpickler::get(std::uint64_t place) {
  const auto found = memo_.find(place);
  if (found == memo_.end())
    corrupt("The pickle refers to memo " + std::to_string(place) + ", which it never set.");
  spend_copy(found->second);
  push(found->second);
}

void Unpickler::push_text(std::string_view text) {
  if (!is_utf8(text)) corrupt("A string is not UTF-8.");
  push(Value(text));
}

// A str of Python 2 may be text or bytes; nothing in the file tells which.
void Unpickler::push_old_string(std::string_view text) {
  if (is_utf8(text)) return push(Value(text));
  push(Value(Value::Data(Bytes{std::string(text)})));
}

void Unpickler::push_integer(std::string_view bytes) {
  const bool negative = !bytes.empty() && (static_cast<unsigned char>(bytes.back()) & 0x80) != 0;
  const char sign = negative ? '\xff' : '\0';
  // The shortest form: a last byte that only repeats the sign of the one before says nothing.
  while (bytes.size() > 1 && bytes.back() == sign &&
         ((static_cast<unsigned char>(bytes[bytes.size() - 2]) & 0x80) != 0) == negative) {
    bytes.remove_suffix(1);
  }
  if (bytes.size() > 8) return push(Value(Value::Data(BigInt{std::string(bytes)})));
  std::uint64_t value = negative ? ~std::uint64_t{0} : 0;
  for (std::size_t i = bytes.size(); i > 0; --i) {
    value = value << 8 | static_cast<unsigned char>(bytes[i - 1]);
  }
  push(Value(static_cast<std::int64_t>(value)));
}

void Unpickler::push_float() {
  std::uint64_t bits = 0;
  for (const char c : take(8)) bits = bits << 8 | static_cast<unsigned char>(c);
  push(Value(std::bit_cast<double>(bits)));
}

void Unpickler::push_tuple(std::size_t size) {
  std::vector<Value> items(size);
  for (std::size_t i = size; i > 0; --i) items[i - 1] = pop();
  push_node(Tuple{std::move(items)});
}

void Unpickler::push_global(std::string_view module, std::string_view name) {
  if (!is_utf8(module) || !is_utf8(name)) corrupt("A class name is not UTF-8.");
  push(Value(Value::Data(Global{std::string(module), std::string(name)})));
}

void Unpickler::stack_global() {
  const Value name = pop(), module = pop();
  if (name.as_string() == nullptr || module.as_string() == nullptr) {
    corrupt("A class name is not a string.");
  }
  // A dotted name (a method, a nested class) has no form of its own in protocol 2, which writes
  // getattr(Class, 'method').
  std::string_view path = *name.as_string();
  std::size_t dot = path.find('.');
  push_global(*module.as_string(), path.substr(0, dot));
  while (dot != std::string_view::npos) {
    path.remove_prefix(dot + 1);
    dot = path.find('.');
    // Two bytes can fetch a name with a thousand dots from the memo.
    spend(sizeof(Call) + 3 * sizeof(Value));
    Value owner = pop();
    push(Value(Value::Data(Global{"__builtin__", "getattr"})));
    push_node(Tuple{{std::move(owner), Value(path.substr(0, dot))}});
    reduce(false);
  }
}

void Unpickler::persistent_id() {
  Value id = pop();
  // torch before 1.6 wrote ('module', class, file, source) for a module's class, once a file, and
  // reads it as the class.
  const auto* tuple = std::get_if<std::shared_ptr<Tuple>>(&id.data);
  if (tuple != nullptr && (*tuple)->items.size() == 4 && (*tuple)->items[0] == Value("module") &&
      as_global((*tuple)->items[1]) != nullptr) {
    spend_copy((*tuple)->items[1]);
    return push((*tuple)->items[1]);
  }
  push_node(PersistentId{std::move(id)});
}

void Unpickler::add_items(std::vector<Value> items, bool to_set) {
  auto* const list = std::get_if<std::shared_ptr<List>>(&top().data);
  auto* const set = std::get_if<std::shared_ptr<Set>>(&top().data);
  auto* const call = std::get_if<std::shared_ptr<Call>>(&top().data);
  std::vector<Value>* target = nullptr;
  if (list != nullptr && !to_set) target = &(*list)->items;
  if (set != nullptr && to_set) target = &(*set)->items;
  if (call != nullptr) target = &(*call)->items;
  if (target == nullptr) corrupt("Items are added to what holds none.");
  if (target->empty()) {
    *target = std::move(items);
  } else {
    target->insert(target->end(), std::make_move_iterator(items.begin()),
                   std::make_move_iterator(items.end()));
  }
}

void Unpickler::add_pairs(std::vector<Value> flat) {
  auto* const dict = std::get_if<std::shared_ptr<Dict>>(&top().data);
  auto* const call = std::get_if<std::shared_ptr<Call>>(&top().data);
  if (dict == nullptr && call == nullptr) corrupt("Entries are added to what is no dict.");
  if (flat.size() % 2 != 0) corrupt("A key of a dict has no value.");
  auto& target = dict != nullptr ? (*dict)->items : (*call)->pairs;
  if (target.empty()) target.reserve(flat.size() / 2);
  for (std::size_t i = 0; i < flat.size(); i += 2) {
    target.emplace_back(std::move(flat[i]), std::move(flat[i + 1]));
  }
}

void Unpickler::reduce(bool new_object) {
  Value args = pop(), function = pop();
  const auto* tuple = std::get_if<std::shared_ptr<Tuple>>(&args.data);
  if (tuple == nullptr) corrupt("The arguments of a call are not a tuple.");
  if (as_global(function) == nullptr &&
      !std::holds_alternative<std::shared_ptr<Call>>(function.data)) {
    corrupt("A call names no function.");
  }
  if (!new_object && fold(function, (*tuple)->items)) return;
  Call call;
  call.function = std::move(function);
  call.args = std::move(args);
  call.new_object = new_object;
  push_node(std::move(call));
}

// True when the call is data in disguise and its value has been pushed.
bool Unpickler::fold(const Value& function, const std::vector<Value>& args) {
  if (names(function, "_codecs", "encode") && args.size() == 2 && args[0].as_string() != nullptr &&
      (args[1] == Value("latin1") || args[1] == Value("latin-1"))) {
    auto bytes = latin1_bytes(*args[0].as_string());
    if (!bytes) return false;
    spend(bytes->size());
    push(Value(Value::Data(Bytes{std::move(*bytes)})));
    return true;
  }
  if (names_builtin(function, "bytes") && args.empty()) {
    push(Value(Value::Data(Bytes{})));
    return true;
  }
  const auto* list = args.size() == 1 ? std::get_if<std::shared_ptr<List>>(&args[0].data) : nullptr;
  if (list == nullptr) return false;
  if (names_builtin(function, "set")) {
    for (const Value& item : (*list)->items) spend_copy(item);
    spend((*list)->items.size() * sizeof(Value));
    push_node(Set{(*list)->items});
    return true;
  }
  return names(function, "collections", "OrderedDict") && fold_pairs((*list)->items);
}

bool Unpickler::fold_pairs(const std::vector<Value>& items) {
  Value dict = Value::ordered_dict();
  Call call = *std::get<std::shared_ptr<Call>>(dict.data);
  spend(items.size() * 2 * sizeof(Value));
  for (const Value& item : items) {
    const auto* pair = item.as_sequence();
    if (pair == nullptr || pair->size() != 2) return false;
    spend_copy((*pair)[0]), spend_copy((*pair)[1]);
    call.pairs.emplace_back((*pair)[0], (*pair)[1]);
  }
  push_node(std::move(call));
  return true;
}

void Unpickler::new_object_ex() {
  Value keywords = pop(), args = pop(), type = pop();
  push(Value(Value::Data(Global{"copyreg", "__newobj_ex__"})));
  push_node(Tuple{{std::move(type), std::move(args), std::move(keywords)}});
  reduce(false);
}

void Unpickler::wrap_call(std::string name, Value argument) {
  push(Value(Value::Data(Global{"__builtin__", std::move(name)})));
  push_node(Tuple{{std::move(argument)}});
  reduce(false);
}

void Unpickler::build() {
  Value state = pop();
  auto* const call = std::get_if<std::shared_ptr<Call>>(&top().data);
  if (call == nullptr) corrupt("A state is given to what is no object.");
  if (!(*call)->state.is_none()) corrupt("An object is given two states.");
  (*call)->state = std::move(state);
}

void Unpickler::check_protocol() {
  const std::uint64_t protocol = number(1);
  if (protocol > 5)
    corrupt("The pickle has protocol " + std::to_string(protocol) + "; 5 is the newest known.");
}

// Depth and cycles over every node made, reachable or not, since all of them are destroyed.
void Unpickler::check_tree() {
  constexpr std::uint32_t kOpen = 0;
  std::unordered_map<const void*, std::uint32_t> height;
  struct Step {
    const Value* value;
    bool leave;
  };
  std::vector<Step> steps;
  const auto close = [&](const Value& value) {
    std::uint32_t tallest = 0;
    for_each_child(value, [&](const Value& child) {
      if (node_of(child) != nullptr) tallest = std::max(tallest, height.at(node_of(child)));
    });
    if (tallest >= limits_.max_depth) {
      fail(Fault::Kind::limit,
           "The pickle is nested deeper than " + std::to_string(limits_.max_depth) + " levels.");
    }
    height[node_of(value)] = tallest + 1;
  };
  arena_.for_each([&](const Value& start) {
    steps.push_back({&start, false});
    while (!steps.empty()) {
      const Step step = steps.back();
      steps.pop_back();
      if (step.leave) {
        close(*step.value);
        continue;
      }
      const auto [entry, added] = height.emplace(node_of(*step.value), kOpen);
      if (!added && entry->second != kOpen) continue;
      if (!added) corrupt("The pickle holds an object that contains itself.");
      steps.push_back({step.value, true});
      for_each_child(*step.value, [&](const Value& child) {
        if (node_of(child) != nullptr && height.count(node_of(child)) == 0) {
          steps.push_back({&child, false});
        } else if (node_of(child) != nullptr && height.at(node_of(child)) == kOpen) {
          corrupt("The pickle holds an object that contains itself.");
        }
      });
    }
  });
}

using Handler = void (*)(Unpickler&);
using Handlers = std::array<Handler, 256>;

void add_numbers(Handlers& on) {
  on['N'] = [](Unpickler& u) { u.push(Value()); };
  on[0x88] = [](Unpickler& u) { u.push(Value(true)); };
  on[0x89] = [](Unpickler& u) { u.push(Value(false)); };
  on['J'] = [](Unpickler& u) {
    u.push(Value(std::int64_t{static_cast<std::int32_t>(static_cast<std::uint32_t>(u.number(4)))}));
  };
  on['K'] = [](Unpickler& u) { u.push(Value(static_cast<std::int64_t>(u.number(1)))); };
  on['M'] = [](Unpickler& u) { u.push(Value(static_cast<std::int64_t>(u.number(2)))); };
  on[0x8a] = [](Unpickler& u) { u.push_integer(u.take(u.number(1))); };
  on[0x8b] = [](Unpickler& u) { u.push_integer(u.take(u.number(4))); };
  on['G'] = [](Unpickler& u) { u.push_float(); };
}

void add_strings(Handlers& on) {
  on['X'] = [](Unpickler& u) { u.push_text(u.take(u.number(4))); };
  on[0x8c] = [](Unpickler& u) { u.push_text(u.take(u.number(1))); };
  on[0x8d] = [](Unpickler& u) { u.push_text(u.take(u.number(8))); };
  on['U'] = [](Unpickler& u) { u.push_old_string(u.take(u.number(1))); };
  on['T'] = [](Unpickler& u) { u.push_old_string(u.take(u.number(4))); };
  static constexpr auto bytes = [](std::string_view raw) {
    return Value(Value::Data(Bytes{std::string(raw)}));
  };
  on['C'] = [](Unpickler& u) { u.push(bytes(u.take(u.number(1)))); };
  on['B'] = [](Unpickler& u) { u.push(bytes(u.take(u.number(4)))); };
  on[0x8e] = [](Unpickler& u) { u.push(bytes(u.take(u.number(8)))); };
  on[0x96] = [](Unpickler& u) { u.wrap_call("bytearray", bytes(u.take(u.number(8)))); };
}

void add_containers(Handlers& on) {
  on['('] = [](Unpickler& u) { u.mark(); };
  on['0'] = [](Unpickler& u) { u.pop_or_unmark(); };
  on['1'] = [](Unpickler& u) { u.pop_to_mark(); };
  on['2'] = [](Unpickler& u) { u.copy_top(); };
  on['}'] = [](Unpickler& u) { u.push_node(Dict{}); };
  on[']'] = [](Unpickler& u) { u.push_node(List{}); };
  on[')'] = [](Unpickler& u) { u.push_node(Tuple{}); };
  on[0x8f] = [](Unpickler& u) { u.push_node(Set{}); };
  on['t'] = [](Unpickler& u) { u.push_node(Tuple{u.pop_to_mark()}); };
  on[0x85] = [](Unpickler& u) { u.push_tuple(1); };
  on[0x86] = [](Unpickler& u) { u.push_tuple(2); };
  on[0x87] = [](Unpickler& u) { u.push_tuple(3); };
  on['e'] = [](Unpickler& u) { u.add_items(u.pop_to_mark(), false); };
  on[0x90] = [](Unpickler& u) { u.add_items(u.pop_to_mark(), true); };
  on['a'] = [](Unpickler& u) {
    std::vector<Value> item(1, u.pop());
    u.add_items(std::move(item), false);
  };
  on['u'] = [](Unpickler& u) { u.add_pairs(u.pop_to_mark()); };
  on['s'] = [](Unpickler& u) {
    std::vector<Value> pair(2);
    pair[1] = u.pop(), pair[0] = u.pop();
    u.add_pairs(std::move(pair));
  };
  on[0x91] = [](Unpickler& u) { u.wrap_call("frozenset", Value::list(u.pop_to_mark())); };
}

void add_objects(Handlers& on) {
  on[0x80] = [](Unpickler& u) { u.check_protocol(); };
  on[0x95] = [](Unpickler& u) { u.number(8); };  // FRAME only helps readers of streams
  on['.'] = [](Unpickler& u) { u.stop(); };
  on['q'] = [](Unpickler& u) { u.put(u.number(1)); };
  on['r'] = [](Unpickler& u) { u.put(u.number(4)); };
  on[0x94] = [](Unpickler& u) { u.put(u.memo_size()); };
  on['h'] = [](Unpickler& u) { u.get(u.number(1)); };
  on['j'] = [](Unpickler& u) { u.get(u.number(4)); };
  on['c'] = [](Unpickler& u) {
    const std::string_view module = u.line();
    u.push_global(module, u.line());
  };
  on[0x93] = [](Unpickler& u) { u.stack_global(); };
  on['R'] = [](Unpickler& u) { u.reduce(false); };
  on[0x81] = [](Unpickler& u) { u.reduce(true); };
  on[0x92] = [](Unpickler& u) { u.new_object_ex(); };
  on['b'] = [](Unpickler& u) { u.build(); };
  on['Q'] = [](Unpickler& u) { u.persistent_id(); };
}

Handlers make_handlers() {
  Handlers on{};
  add_numbers(on);
  add_strings(on);
  add_containers(on);
  add_objects(on);
  return on;
}

Value Unpickler::run() {
  static const Handlers on = make_handlers();
  while (!stopped_) {
    opcode_at_ = at_;
    const auto opcode = static_cast<unsigned char>(take(1).front());
    if (on[opcode] == nullptr) {
      corrupt("Operation " + std::to_string(opcode) +
              " is unknown here (the text forms of protocols 0 and 1, extension codes and buffers "
              "outside the pickle are not read).");
    }
    on[opcode](*this);
  }
  Value root = pop();
  if (!stack_.empty() || !marks_.empty()) corrupt("The pickle ends with a value left over.");
  check_tree();
  arena_.declare_sound();
  return root;
}

}  // namespace

Result<Value> unpickle(std::span<const std::byte> bytes, const UnpickleLimits& limits,
                       std::size_t* consumed) {
  Unpickler unpickler(bytes, limits);
  try {
    Value root = unpickler.run();
    if (consumed != nullptr) {
      *consumed = unpickler.consumed();
    } else if (unpickler.consumed() != bytes.size()) {
      unpickler.corrupt("Bytes follow the end of the pickle.");
    }
    return root;
  } catch (Fault& fault) {
    return std::move(fault);
  }
}

}  // namespace millrace::pickle
