// Walking a pickle tree: by node identity, without recursion, so that neither depth nor sharing (a
// few hundred bytes can describe 2^100 paths) costs more than the nodes that exist.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <variant>
#include <vector>

#include "millrace/io/pickle_value.h"

namespace millrace::pickle {

// The identity of a container or call; null for plain values (numbers, strings, names).
const void* node_of(const Value& value);

// Calls visit(const Value&) for what a node holds directly, in the order the pickler writes it.
template <class Visit>
void for_each_child(const Value& value, Visit visit) {
  const auto each = [&](const auto& items) {
    for (const Value& item : items) visit(item);
  };
  const auto each_pair = [&](const auto& pairs) {
    for (const auto& [key, mapped] : pairs) visit(key), visit(mapped);
  };
  if (const auto* list = std::get_if<std::shared_ptr<List>>(&value.data)) each((*list)->items);
  if (const auto* tuple = std::get_if<std::shared_ptr<Tuple>>(&value.data)) each((*tuple)->items);
  if (const auto* set = std::get_if<std::shared_ptr<Set>>(&value.data)) each((*set)->items);
  if (const auto* dict = std::get_if<std::shared_ptr<Dict>>(&value.data)) each_pair((*dict)->items);
  if (const auto* id = std::get_if<std::shared_ptr<PersistentId>>(&value.data)) visit((*id)->id);
  if (const auto* call = std::get_if<std::shared_ptr<Call>>(&value.data)) {
    visit((*call)->function);
    visit((*call)->args);
    each((*call)->items);
    each_pair((*call)->pairs);
    visit((*call)->state);
  }
}

// Calls visit(const Value&) once for every node and every plain value below `root`, parents first
// and in document order. A shared node is visited where it first occurs. Cycles end.
template <class Visit>
void walk(const Value& root, Visit visit) {
  std::unordered_set<const void*> seen;
  std::vector<const Value*> pending{&root};
  while (!pending.empty()) {
    const Value& value = *pending.back();
    pending.pop_back();
    const void* node = node_of(value);
    if (node != nullptr && !seen.insert(node).second) continue;
    visit(value);
    const auto first = static_cast<std::ptrdiff_t>(pending.size());
    for_each_child(value, [&](const Value& child) { pending.push_back(&child); });
    std::reverse(pending.begin() + first, pending.end());
  }
}

// A persistent id that names a storage: ('storage', torch.FloatStorage, key, location, numel).
struct StorageRef {
  std::string key;
  std::string storage_class;   // FloatStorage
  std::int64_t numel = 0;      // elements of the class; bytes for UntypedStorage
  std::optional<DType> dtype;  // none for a class that has no DType
};
// Nothing when the value is no persistent id of that form, or has a view or a negative count.
std::optional<StorageRef> as_storage(const Value& value);

// The keys of the storages a tree uses, each once, in the order of first use: the order in which a
// writer lays them out.
std::vector<std::string> storage_order(const Value& root);

// True for a call to one of torch's tensor rebuilders, whether or not as_tensor() accepts it.
bool claims_tensor(const Value& value);

}  // namespace millrace::pickle
