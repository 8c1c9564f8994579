// The storages of a checkpoint: collects them and makes the tensor leaves that name them.
//
// Memory is written once: tensors of one storage share an entry, and so do storages that lie in
// another's memory. The order of first use is the order of the file. A table is filled once and can
// then stand for later captures, for as long as current() finds every tensor where it was. Train
// context.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "millrace/io/pickle_value.h"
#include "millrace/runtime/engine/strategy.h"

namespace at {
class Tensor;
}

namespace millrace {

class StorageTable {
 public:
  StorageTable();
  ~StorageTable();
  StorageTable(StorageTable&&) noexcept;
  StorageTable& operator=(StorageTable&&) noexcept;

  // The leaf of `tensor`. kAnyTime wins when a storage is added with both mutations. `name` is for
  // messages. Throws Error for what a .pth file cannot hold: an unknown type, one storage viewed as
  // two types, storages that overlap in part.
  pickle::Value add(const at::Tensor& tensor, Mutation mutation, std::string name = "a tensor");

  // The storages from index `first` on are one parameter's: they are copied slice by slice
  // together.
  void group_from(std::size_t first);

  const std::vector<CapturedStorage>& storages() const noexcept { return storages_; }
  // Owns the tensors' memory for as long as the storages are read.
  std::shared_ptr<const void> handles() const;
  // Whether leaves and storages still describe the tensors: none got other memory, another shape or
  // another type.
  bool current() const;
  // Knows the version counters of this moment.
  std::shared_ptr<const CaptureWatch> watch() const;

 private:
  struct Held;
  class Watch;
  struct Place {
    std::size_t storage;
    std::size_t first;  // byte of it
  };
  Place place_of(const at::Tensor& tensor, Mutation mutation, const std::string& name);

  std::map<const void*, Place> known_;                  // by StorageImpl
  std::map<const std::byte*, std::size_t> by_address_;  // storages that have bytes
  std::vector<CapturedStorage> storages_;
  std::shared_ptr<Held> held_;  // shared with handles and watches, which only read it
};

}  // namespace millrace
