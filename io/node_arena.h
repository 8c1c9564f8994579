// Owns the nodes of a tree that is still being built from bytes nobody has checked, so that giving
// up is safe at any point: a hostile pickle can tie a cycle, which shared_ptr would leak, or nest a
// million levels, whose destructors would overflow the stack.
//
// Internal to the unpickler. Lives on its stack and must outlive every Value that points at a node.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <tuple>

#include "millrace/io/pickle_value.h"
#include "millrace/io/unpickle_input.h"

namespace millrace::pickle {

class NodeArena {
 public:
  NodeArena() = default;
  NodeArena(const NodeArena&) = delete;
  NodeArena& operator=(const NodeArena&) = delete;
  // Empties every node that was made, unless check() found them sound.
  ~NodeArena();

  template <class Node>
  std::shared_ptr<Node> make() {
    return std::get<std::deque<std::shared_ptr<Node>>>(nodes_).emplace_back(
        std::make_shared<Node>());
  }

  // Depth and cycles over every node made, reachable or not, since all of them are destroyed; takes
  // no recursion and time in proportion to the nodes. A cycle (corrupt) or a node nested deeper
  // than `max_depth` (limit) is reported through `in`, which throws. After it, the nodes that the
  // tree uses outlive the arena.
  void check(std::size_t max_depth, const UnpickleInput& in);

 private:
  std::tuple<std::deque<std::shared_ptr<List>>, std::deque<std::shared_ptr<Tuple>>,
             std::deque<std::shared_ptr<Set>>, std::deque<std::shared_ptr<Dict>>,
             std::deque<std::shared_ptr<PersistentId>>, std::deque<std::shared_ptr<Call>>>
      nodes_;
  bool sound_ = false;
};

}  // namespace millrace::pickle
