#include "millrace/io/pickler.h"

#include <bit>
#include <limits>
#include <unordered_map>

#include "millrace/io/pickle_walk.h"
#include "millrace/io/utf8.h"
#include "millrace/runtime/async/error.h"

namespace millrace::pickle {
namespace {

constexpr int kMaxDepth = 1'200;

struct GlobalHash {
  std::size_t operator()(const Global& global) const {
    return std::hash<std::string>{}(global.module) * 31 + std::hash<std::string>{}(global.name);
  }
};

class Pickler {
 public:
  explicit Pickler(const StorageNames& names) : names_(names) {}

  std::vector<std::byte> run(const Value& root) {
    count_all(root);
    op("\x80\x02");
    save(root);
    op(".");
    return std::move(out_);
  }

  void operator()(None) { op("N"); }
  void operator()(bool value) { op(value ? "\x88" : "\x89"); }
  void operator()(std::int64_t value);
  void operator()(double value);
  void operator()(const std::string& value);
  void operator()(const BigInt& value) { long_bytes(value.bytes); }
  void operator()(const Bytes& value);
  void operator()(const Global& value);
  void operator()(const std::shared_ptr<List>& list);
  void operator()(const std::shared_ptr<Tuple>& tuple);
  void operator()(const std::shared_ptr<Set>& set);
  void operator()(const std::shared_ptr<Dict>& dict);
  void operator()(const std::shared_ptr<PersistentId>& id);
  void operator()(const std::shared_ptr<Call>& call);

 private:
  // How often a thing occurs, and its place in the memo once it is there.
  struct Use {
    std::uint32_t count = 0;
    std::int64_t memo = -1;
  };

  void count_all(const Value& root);
  void save(const Value& value);
  // True when the thing was in the memo and a GET has been written.
  bool fetched(const Use& use);
  void memoize(Use& use);
  void items(const std::vector<Value>& values);
  void pairs(const std::vector<std::pair<Value, Value>>& values);

  void op(std::string_view bytes) {
    const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
    out_.insert(out_.end(), data, data + bytes.size());
  }
  void number(std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out_.push_back(static_cast<std::byte>(value >> (8 * i)));
  }
  void text(std::string_view value);
  void long_bytes(std::string_view bytes);

  const StorageNames& names_;
  std::vector<std::byte> out_;
  std::unordered_map<const void*, Use> nodes_;
  std::unordered_map<std::string_view, Use> strings_;
  std::unordered_map<Global, Use, GlobalHash> globals_;
  std::uint32_t memo_size_ = 0;
  int depth_ = 0;
};

void Pickler::count_all(const Value& root) {
  std::vector<const Value*> pending{&root};
  while (!pending.empty()) {
    const Value& value = *pending.back();
    pending.pop_back();
    if (const std::string* string = value.as_string()) ++strings_[*string].count;
    if (const auto* global = std::get_if<Global>(&value.data)) ++globals_[*global].count;
    const void* node = node_of(value);
    if (node == nullptr || ++nodes_[node].count > 1) continue;
    for_each_child(value, [&](const Value& child) { pending.push_back(&child); });
  }
}

void Pickler::save(const Value& value) {
  if (++depth_ > kMaxDepth) {
    throw Error("pickle: the tree is nested deeper than " + std::to_string(kMaxDepth) +
                " levels, or contains itself");
  }
  const void* node = node_of(value);
  if (node == nullptr || !fetched(nodes_.at(node))) std::visit(*this, value.data);
  --depth_;
}

bool Pickler::fetched(const Use& use) {
  if (use.memo < 0) return false;
  const auto place = static_cast<std::uint64_t>(use.memo);
  op(place < 256 ? "h" : "j");
  number(place, place < 256 ? 1 : 4);
  return true;
}

void Pickler::memoize(Use& use) {
  if (use.count < 2) return;
  use.memo = memo_size_++;
  const auto place = static_cast<std::uint64_t>(use.memo);
  op(place < 256 ? "q" : "r");
  number(place, place < 256 ? 1 : 4);
}

void Pickler::operator()(std::int64_t value) {
  const auto bits = static_cast<std::uint64_t>(value);
  if (value >= 0 && value < 0x100) {
    op("K"), number(bits, 1);
  } else if (value >= 0 && value < 0x10000) {
    op("M"), number(bits, 2);
  } else if (value >= std::numeric_limits<std::int32_t>::min() &&
             value <= std::numeric_limits<std::int32_t>::max()) {
    op("J"), number(bits, 4);
  } else {
    op("\x8a\x08"), number(bits, 8);
  }
}

void Pickler::operator()(double value) {
  op("G");
  const auto bits = std::bit_cast<std::uint64_t>(value);
  for (int shift = 56; shift >= 0; shift -= 8)
    out_.push_back(static_cast<std::byte>(bits >> shift));
}

void Pickler::text(std::string_view value) {
  if (value.size() > std::numeric_limits<std::uint32_t>::max()) {
    throw Error("pickle: a string of " + std::to_string(value.size()) +
                " bytes does not fit a protocol 2 pickle");
  }
  op("X"), number(value.size(), 4), op(value);
}

void Pickler::operator()(const std::string& value) {
  // A storage's new name was not counted: it is written where it occurs.
  const auto use = strings_.find(value);
  if (use == strings_.end() || use->second.count < 2) return text(value);
  if (fetched(use->second)) return;
  text(value);
  memoize(use->second);
}

void Pickler::operator()(const Bytes& value) {
  (*this)(Global{"_codecs", "encode"});
  text(latin1_text(value.data));
  text("latin1");
  op("\x86R");
}

void Pickler::operator()(const Global& value) {
  // Counted uses decide the memo; the names this class writes itself are just written.
  const auto use = globals_.find(value);
  if (use != globals_.end() && fetched(use->second)) return;
  if ((value.module + value.name).find('\n') != std::string::npos) {
    throw Error("pickle: a class name with a line break");
  }
  op("c" + value.module + "\n" + value.name + "\n");
  if (use != globals_.end()) memoize(use->second);
}

void Pickler::long_bytes(std::string_view bytes) {
  if (bytes.size() < 256) {
    op("\x8a"), number(bytes.size(), 1), op(bytes);
  } else {
    op("\x8b"), number(bytes.size(), 4), op(bytes);
  }
}

void Pickler::items(const std::vector<Value>& values) {
  if (values.empty()) return;
  op("(");
  for (const Value& value : values) save(value);
  op("e");
}

void Pickler::pairs(const std::vector<std::pair<Value, Value>>& values) {
  if (values.empty()) return;
  op("(");
  for (const auto& [key, value] : values) save(key), save(value);
  op("u");
}

void Pickler::operator()(const std::shared_ptr<List>& list) {
  op("]");
  memoize(nodes_.at(list.get()));
  items(list->items);
}

void Pickler::operator()(const std::shared_ptr<Dict>& dict) {
  op("}");
  memoize(nodes_.at(dict.get()));
  pairs(dict->items);
}

void Pickler::operator()(const std::shared_ptr<Tuple>& tuple) {
  const std::size_t size = tuple->items.size();
  if (size == 0) return op(")");
  if (size > 3) op("(");
  for (const Value& value : tuple->items) save(value);
  op(size == 1 ? "\x85" : size == 2 ? "\x86" : size == 3 ? "\x87" : "t");
  memoize(nodes_.at(tuple.get()));
}

void Pickler::operator()(const std::shared_ptr<Set>& set) {
  (*this)(Global{"__builtin__", "set"});
  op("]");
  items(set->items);
  op("\x85R");
  memoize(nodes_.at(set.get()));
}

void Pickler::operator()(const std::shared_ptr<PersistentId>& id) {
  const auto storage = as_storage(Value(Value::Data(id)));
  const auto renamed = storage ? names_.find(storage->key) : names_.end();
  if (renamed == names_.end()) {
    save(id->id);
  } else {
    std::vector<Value> parts = *id->id.as_sequence();
    op("(");
    save(parts[0]), save(parts[1]);
    text(renamed->second);
    save(parts[3]), save(parts[4]);
    op("t");
  }
  op("Q");
  memoize(nodes_.at(id.get()));
}

void Pickler::operator()(const std::shared_ptr<Call>& call) {
  save(call->function);
  save(call->args);
  op(call->new_object ? "\x81" : "R");
  memoize(nodes_.at(call.get()));
  items(call->items);
  pairs(call->pairs);
  if (call->state.is_none()) return;
  save(call->state);
  op("b");
}

}  // namespace

std::vector<std::byte> pickle(const Value& value, const StorageNames& names) {
  return Pickler(names).run(value);
}

}  // namespace millrace::pickle
