// The state of an imagined hook, with a bit of all that StateReader fills or leaves to cereal.
#pragma once

#include <cereal/types/deque.hpp>
#include <cereal/types/list.hpp>
#include <cereal/types/map.hpp>
#include <cereal/types/memory.hpp>
#include <cereal/types/optional.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/unordered_set.hpp>
#include <cereal/types/variant.hpp>
#include <cereal/types/vector.hpp>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <variant>
#include <vector>

#include "millrace/io/state_archive.h"

namespace millrace::fuzz {

struct TreeNode {
  std::int32_t value = 0;
  std::unique_ptr<TreeNode> left, right;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(value, left, right);
  }
};

struct NestedState {
  bool flag = false;
  std::int64_t number = 0;
  std::string text;
  std::vector<double> history;
  std::vector<std::string> names;
  std::map<std::string, std::vector<float>> series;
  std::deque<std::int32_t> window;
  std::list<std::string> queue;
  std::optional<std::string> note;
  std::variant<std::int32_t, std::string> either;
  std::unique_ptr<TreeNode> tree;
  std::unordered_set<std::uint32_t> seen;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(flag, number, text, history, names, series, window, queue, note, either, tree, seen);
  }
};

inline std::string encode(const NestedState& state) {
  std::string bytes;
  StateWriter out(bytes);
  out(state);
  return bytes;
}

}  // namespace millrace::fuzz
