// The storages of a checkpoint that is being saved, while hooks add tensors and drop others.
//
// Internal to CheckpointContent. Train context.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "millrace/io/pickle_value.h"
#include "millrace/io/pickler.h"
#include "millrace/runtime/engine/strategy.h"
#include "millrace/runtime/engine/tensor_view.h"

namespace millrace {

class ContentTensors {
 public:
  using Moved = std::function<std::string()>;  // see CheckpointContent::tensor

  // Adds to `state`, which outlives it.
  explicit ContentTensors(CapturedState& state);

  pickle::Value add(const TensorView& view, Mutation mutation,
                    std::shared_ptr<const void> keep_alive, Moved moved, bool on_device);

  // Makes the state hold what `trees` name: added storages follow the captured ones. Unless
  // `keep_captured`, captured storages that no tree names are dropped. Returns what the storages in
  // the trees are called now. Throws Error for a leaf that belongs to no storage of this
  // checkpoint; the state is untouched then.
  pickle::StorageNames settle(const std::vector<const pickle::Value*>& trees, bool keep_captured);

 private:
  struct Added {
    std::size_t storage;  // captured ones first, then those in own_
    Moved moved;
  };
  using Addresses = std::map<const std::byte*, std::size_t>;
  CapturedStorage& storage(std::size_t i);
  // The last storage in address order that has any of these bytes, or none (SIZE_MAX).
  std::size_t touching(std::span<const std::byte> bytes);
  std::vector<bool> used_in(const std::vector<const pickle::Value*>& trees);
  // `number`: what a storage is called now; `count` of them are left.
  void give_to_state(const std::vector<std::size_t>& number, std::size_t count);

  CapturedState& state_;
  const std::size_t captured_;
  const std::string prefix_;          // of the keys in this checkpoint's own leaves
  std::vector<Added> added_;          // by the number behind the prefix
  std::vector<CapturedStorage> own_;  // storages that were not captured
  std::vector<std::shared_ptr<const void>> kept_;
  std::vector<std::size_t> by_address_;  // captured storages that have bytes; made when needed
  Addresses own_by_address_;
};

}  // namespace millrace
