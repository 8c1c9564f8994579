// Captures a model and its optimizer: the trees and storages of a checkpoint.
//
// Trees and storages depend on which tensors there are, their shapes and where they live, so they
// are made once and shared by all captures that find these unchanged; a capture then costs pointer
// comparisons and the version counters. Hyper-parameters are read every time. What is shared is
// never changed again: the I/O thread may be reading it.
//
// Train context. Keeps the tensors of the last capture alive, also ones the model has dropped
// since.
#pragma once

#include <memory>

#include "millrace/runtime/engine/strategy.h"

namespace millrace {

class Model;
class Optimizer;

class StateCapture {
 public:
  // Both outlive it.
  StateCapture(const Model& model, const Optimizer& optimizer);
  ~StateCapture();

  CapturedState capture(bool with_optimizer);
  // How often trees and storages had to be made.
  std::size_t rebuilds() const noexcept { return rebuilds_; }

 private:
  struct Made;
  bool current(const Made& made) const;
  std::unique_ptr<const Made> make(bool with_optimizer) const;

  const Model& model_;
  const Optimizer& optimizer_;
  std::unique_ptr<const Made> whole_, weights_;
  std::size_t rebuilds_ = 0;
};

}  // namespace millrace
