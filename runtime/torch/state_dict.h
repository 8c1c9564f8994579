// The model and the optimizer as Python writes them, and back.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "millrace/io/pickle_value.h"
#include "millrace/runtime/engine/strategy.h"
#include "millrace/runtime/torch/model.h"
#include "millrace/runtime/torch/optimizer.h"

namespace millrace {

// Collects storages and makes tensor leaves that name them. Tensors that share a storage share an
// entry; the order of first use is the order of the file.
class StorageTable {
 public:
  // The leaf of `tensor`. kAnyTime wins when a storage is added with both mutations.
  pickle::Value add(const at::Tensor& tensor, Mutation mutation);

  std::vector<CapturedStorage> storages() const;
  // Owns the tensors' memory for as long as the storages are read.
  std::shared_ptr<const void> handles() const;

 private:
  struct Held;
  std::map<const void*, std::size_t> index_;  // by the storage's address
  std::vector<CapturedStorage> storages_;
  std::shared_ptr<Held> held_;
};

// {'state': {0: {...}}, 'param_groups': [{..., 'params': [0, 1]}]}. Storages are added parameter by
// parameter: the parameter itself, then its state.
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
