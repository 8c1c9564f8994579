// The state of Python's pickle machine between two operations: a stack with marks, the memo, and
// what the pickle has spent of its limits. It knows nothing of opcodes or of what values mean.
//
// Internal to the unpickler; one machine reads one pickle, on the stack of unpickle(). Every
// operation that the pickle is not entitled to throws through in().fail().
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "millrace/io/node_arena.h"
#include "millrace/io/pickle_value.h"
#include "millrace/io/unpickle_input.h"
#include "millrace/io/unpickler.h"

namespace millrace::pickle {

class UnpickleMachine {
 public:
  UnpickleMachine(std::span<const std::byte> bytes, const UnpickleLimits& limits)
      : in_(bytes), limits_(limits) {}

  UnpickleInput& in() { return in_; }

  // Stack. Nothing reaches below the innermost mark.
  void push(Value value);
  Value pop();
  Value& top();
  std::vector<Value> pop_to_mark();
  void mark() { marks_.push_back(stack_.size()); }
  void pop_or_unmark();
  // Moves the content into a node of the arena and pushes that.
  template <class Node>
  void push_node(Node content) {
    auto node = arena_.make<Node>();
    *node = std::move(content);
    push(Value(Value::Data(std::move(node))));
  }

  // Memo. Plain values are copied in and out, which counts as spent.
  void put(std::uint64_t place);
  void get(std::uint64_t place);
  void copy_top() { spend_copy(top()), push(Value(top())); }
  std::uint64_t memo_size() const { return memo_.size(); }

  // Counts memory that the pickle did not bring itself; a pickle that asks for more than 64 times
  // its own size is over the limit. Call it before making the copy.
  void spend(std::uint64_t bytes);
  void spend_copy(const Value& value);

  void stop() { stopped_ = true; }
  bool stopped() const { return stopped_; }
  // After stop(): the one value that is left, once every node made is known to be sound.
  Value finish();

 private:
  UnpickleInput in_;
  UnpickleLimits limits_;
  NodeArena arena_;  // before the stack and the memo, so that it outlives what points into it
  std::deque<Value> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint64_t, Value> memo_;
  std::size_t values_ = 0;
  std::uint64_t copied_ = 0;
  bool stopped_ = false;
};

}  // namespace millrace::pickle
