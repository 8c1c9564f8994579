// The model and the optimizer as Python writes them, and back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "millrace/io/pickle_value.h"
#include "millrace/runtime/engine/strategy.h"
#include "millrace/runtime/torch/model.h"
#include "millrace/runtime/torch/optimizer.h"
#include "millrace/runtime/torch/storage_table.h"

namespace millrace {

// The parts of Python's optimizer state_dict that depend on the tensors alone.
struct OptimizerTrees {
  pickle::Value states;   // {0: {'step': ..., 'exp_avg': ...}, ...}
  pickle::Value indices;  // [0, 1, ...]
};
// Storages are added parameter by parameter: the parameter itself, then its state. `names` are the
// parameters', for messages; without them they are called by their index.
OptimizerTrees optimizer_trees(const Optimizer& optimizer, StorageTable& storages,
                               const std::vector<std::string>& names = {});
// {'state': states, 'param_groups': [{..., 'params': indices}]}, the hyper-parameters as they are
// now.
pickle::Value optimizer_tree(const Optimizer& optimizer, const OptimizerTrees& trees);
pickle::Value optimizer_tree(const Optimizer& optimizer, StorageTable& storages);
// OrderedDict name -> tensor with _metadata.
pickle::Value model_tree(const Model& model, StorageTable& storages);

// What loading `file` into the model would do; nothing is written.
struct ModelMatch {
  struct Pair {
    Model::Entry entry;
    pickle::TensorRef leaf;
  };
  std::vector<Pair> pairs;
  std::vector<std::string> missing;     // in the model, not in the file
  std::vector<std::string> unexpected;  // in the file, not in the model
  std::vector<std::string> mismatched;  // "fc.weight: file [10, 20], model [10, 30]"

  bool exact() const { return missing.empty() && unexpected.empty() && mismatched.empty(); }
  std::string text() const;  // the reference's report, shortened
};
// A leading "module." of the file's keys is dropped, as data-parallel wrappers add it.
ModelMatch match_model(const Model& model, const pickle::Value& state_dict);

// Loads Python's layout into the optimizer. Throws CheckpointError when groups, parameters, names
// or shapes differ; then nothing was written.
void load_optimizer_tree(Optimizer& optimizer, const CheckpointFile& file, StateGate& gate);

}  // namespace millrace
