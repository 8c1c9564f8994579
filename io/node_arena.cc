#include "millrace/io/node_arena.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "millrace/io/pickle_walk.h"

namespace millrace::pickle {
namespace {

// A depth-first walk with a stack of its own, which measures each node once.
class TreeCheck {
 public:
  TreeCheck(std::size_t max_depth, const UnpickleInput& in) : max_depth_(max_depth), in_(in) {}

  void visit(const Value& start) {
    steps_.push_back({&start, false});
    while (!steps_.empty()) {
      const Step step = steps_.back();
      steps_.pop_back();
      if (step.leave) {
        leave(*step.value);
      } else {
        enter(*step.value);
      }
    }
  }

 private:
  static constexpr std::uint32_t kOpen = 0;
  struct Step {
    const Value* value;
    bool leave;
  };

  void enter(const Value& value) {
    const auto [entry, added] = height_.emplace(node_of(value), kOpen);
    if (!added && entry->second != kOpen) return;
    if (!added) refuse_cycle();
    steps_.push_back({&value, true});
    for_each_child(value, [&](const Value& child) {
      const void* const node = node_of(child);
      if (node == nullptr) return;
      const auto known = height_.find(node);
      if (known == height_.end()) {
        steps_.push_back({&child, false});
      } else if (known->second == kOpen) {
        refuse_cycle();
      }
    });
  }

  void leave(const Value& value) {
    std::uint32_t tallest = 0;
    for_each_child(value, [&](const Value& child) {
      if (node_of(child) != nullptr) tallest = std::max(tallest, height_.at(node_of(child)));
    });
    if (tallest >= max_depth_) {
      in_.fail(Fault::Kind::limit,
               "The pickle is nested deeper than " + std::to_string(max_depth_) + " levels.");
    }
    height_[node_of(value)] = tallest + 1;
  }

  [[noreturn]] void refuse_cycle() const {
    in_.corrupt("The pickle holds an object that contains itself.");
  }

  std::size_t max_depth_;
  const UnpickleInput& in_;
  std::unordered_map<const void*, std::uint32_t> height_;  // kOpen between enter and leave
  std::vector<Step> steps_;
};

}  // namespace

// Emptying a node only drops counts, as the arena still holds what it pointed at.
NodeArena::~NodeArena() {
  if (sound_) return;
  std::apply(
      [](auto&... kind) {
        const auto empty = [](auto& nodes) {
          for (auto& node : nodes) *node = {};
        };
        (empty(kind), ...);
      },
      nodes_);
}

void NodeArena::check(std::size_t max_depth, const UnpickleInput& in) {
  TreeCheck tree(max_depth, in);
  std::apply(
      [&](const auto&... kind) {
        const auto each = [&](const auto& nodes) {
          for (const auto& node : nodes) tree.visit(Value(Value::Data(node)));
        };
        (each(kind), ...);
      },
      nodes_);
  sound_ = true;
}

}  // namespace millrace::pickle
