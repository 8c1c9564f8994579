#include <unordered_map>

#include "millrace/io/pickle_walk.h"

namespace millrace::pickle {
namespace {

class Copier {
 public:
  explicit Copier(bool share_tensors) : share_tensors_(share_tensors) {}

  Value copy(const Value& value) {
    if (share_tensors_ && claims_tensor(value)) return value;
    return std::visit([this](const auto& data) { return Value(Value::Data(copied(data))); },
                      value.data);
  }

 private:
  template <class Plain>
  Plain copied(const Plain& plain) {
    return plain;
  }
  template <class Node>
  std::shared_ptr<Node> copied(const std::shared_ptr<Node>& node) {
    if (const auto found = done_.find(node.get()); found != done_.end()) {
      return std::static_pointer_cast<Node>(found->second);
    }
    auto twin = std::make_shared<Node>();
    done_.emplace(node.get(), twin);
    fill(*twin, *node);
    return twin;
  }

  void fill(PersistentId& to, const PersistentId& from) { to.id = copy(from.id); }
  void fill(Dict& to, const Dict& from) { to.items = pairs(from.items); }
  void fill(Call& to, const Call& from) {
    to.function = copy(from.function);
    to.args = copy(from.args);
    to.new_object = from.new_object;
    to.items = items(from.items);
    to.pairs = pairs(from.pairs);
    to.state = copy(from.state);
  }
  template <class Sequence>
  void fill(Sequence& to, const Sequence& from) {
    to.items = items(from.items);
  }

  std::vector<Value> items(const std::vector<Value>& from) {
    std::vector<Value> to;
    to.reserve(from.size());
    for (const Value& item : from) to.push_back(copy(item));
    return to;
  }
  std::vector<std::pair<Value, Value>> pairs(const std::vector<std::pair<Value, Value>>& from) {
    std::vector<std::pair<Value, Value>> to;
    to.reserve(from.size());
    for (const auto& [key, value] : from) to.emplace_back(copy(key), copy(value));
    return to;
  }

  const bool share_tensors_;
  std::unordered_map<const void*, std::shared_ptr<void>> done_;
};

}  // namespace

Value deep_copy(const Value& value) { return Copier(false).copy(value); }
Value copy_around_tensors(const Value& value) { return Copier(true).copy(value); }

}  // namespace millrace::pickle
