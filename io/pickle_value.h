// An inert tree of what a Python pickle says, and the few shapes Millrace gives meaning to.
//
// Reading a pickle looks nothing up and calls nothing: an object made by a call (REDUCE, NEWOBJ)
// stays a Call node that names the function and holds its arguments, so unknown classes survive as
// data and writing the tree back is lossless. Containers have identity: two Values may share one
// node, and the pickler keeps them shared (Python's memo), which is why nodes are held by
// shared_ptr.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "millrace/io/dtype.h"

namespace millrace::pickle {

class Value;

struct None {
  bool operator==(const None&) const = default;
};
struct BigInt {  // beyond int64: little-endian two's complement, as LONG1 holds it
  std::string bytes;
  bool operator==(const BigInt&) const = default;
};
struct Bytes {
  std::string data;
  bool operator==(const Bytes&) const = default;
};
struct Global {  // a name, never an object
  std::string module, name;
  bool operator==(const Global&) const = default;
};
struct List {
  std::vector<Value> items;
};
struct Tuple {
  std::vector<Value> items;
};
struct Set {
  std::vector<Value> items;
};
struct Dict {  // insertion order, as in Python
  std::vector<std::pair<Value, Value>> items;
};
struct PersistentId;  // ('storage', torch.FloatStorage, '0', 'cpu', 10)
struct Call;          // fn(*args), then items, pairs and state added to the result

class Value {
 public:
  using Data =
      std::variant<None, bool, std::int64_t, double, std::string, BigInt, Bytes, Global,
                   std::shared_ptr<List>, std::shared_ptr<Tuple>, std::shared_ptr<Set>,
                   std::shared_ptr<Dict>, std::shared_ptr<PersistentId>, std::shared_ptr<Call>>;

  Value() = default;                                           // None
  Value(bool value) : data(value) {}                           // NOLINT
  Value(int value) : data(std::int64_t{value}) {}              // NOLINT
  Value(std::int64_t value) : data(value) {}                   // NOLINT
  Value(double value) : data(value) {}                         // NOLINT
  Value(std::string value) : data(std::move(value)) {}         // NOLINT
  Value(std::string_view value) : data(std::string(value)) {}  // NOLINT
  Value(const char* value) : data(std::string(value)) {}       // NOLINT
  explicit Value(Data value) : data(std::move(value)) {}

  static Value list(std::vector<Value> items = {});
  static Value tuple(std::vector<Value> items);
  static Value dict();
  // collections.OrderedDict(), filled with set().
  static Value ordered_dict();

  bool is_none() const { return std::holds_alternative<None>(data); }
  // Each is empty when the value is of another kind. as_int also takes bool, as_double also int, as
  // Python would; as_double accepts numpy scalars' plain forms only.
  std::optional<bool> as_bool() const;
  std::optional<std::int64_t> as_int() const;
  std::optional<double> as_double() const;
  const std::string* as_string() const;
  // Items of a list, tuple or set; null otherwise.
  const std::vector<Value>* as_sequence() const;
  // Pairs of a dict, an OrderedDict or a dict subclass (a Call that carries pairs); null otherwise.
  const std::vector<std::pair<Value, Value>>* as_mapping() const;

  // The entry of a mapping, or null. Keys are compared by value.
  const Value* find(const Value& key) const;
  Value* find(const Value& key);
  // Sets or adds an entry of a dict or OrderedDict; throws std::logic_error on another kind.
  void set(Value key, Value value);
  // Removes an entry; false when there was none.
  bool erase(const Value& key);
  // Appends to a list; throws std::logic_error on another kind.
  void append(Value value);

  // Deep equality by content; shared nodes compare like their copies. Cyclic trees are not
  // compared.
  bool operator==(const Value& other) const;

  Data data;
};

struct PersistentId {
  Value id;
};

struct Call {
  Value function;                              // a Global, or another Call
  Value args;                                  // a tuple
  bool new_object = false;                     // NEWOBJ instead of REDUCE
  std::vector<Value> items;                    // APPENDS or ADDITEMS
  std::vector<std::pair<Value, Value>> pairs;  // SETITEMS
  Value state;                                 // BUILD; None when there was none
};

// A tensor leaf: torch._utils._rebuild_tensor_v2 over a storage of the file.
struct TensorRef {
  std::string storage_key;  // the file's entry data/<key>
  DType dtype = DType::kFloat32;
  std::int64_t storage_numel = 0;
  std::int64_t offset = 0;  // in elements
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> strides;  // in elements
  bool requires_grad = false;

  std::int64_t numel() const;
  bool operator==(const TensorRef&) const = default;
};

Value make_tensor(const TensorRef& tensor);
// The tensor a value describes (also through Parameter and subclass wrappers), or nothing. Checked:
// sizes and offset are not negative, and the last element lies inside the storage.
std::optional<TensorRef> as_tensor(const Value& value);

// A state_dict's `_metadata` attribute: sets or reads the BUILD state of an OrderedDict.
void set_attribute(Value& object, std::string_view name, Value value);
const Value* attribute(const Value& object, std::string_view name);

// A copy that shares no node with the original: what another thread may read while the original
// changes. Sharing inside the value is kept.
Value deep_copy(const Value& value);
// The same, but the leaves of tensors are shared with the original: for trees whose leaves are
// replaced and never changed.
Value copy_around_tensors(const Value& value);

// A short printable form for messages and dumps, cut at `limit` characters.
std::string describe(const Value& value, std::size_t limit = 200);

}  // namespace millrace::pickle
