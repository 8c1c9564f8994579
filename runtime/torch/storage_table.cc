#include "millrace/runtime/torch/storage_table.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <utility>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/torch/tensor_bytes.h"

namespace millrace {

struct StorageTable::Held {
  struct Added {
    at::Tensor tensor;  // the caller's own, whose storage set_data() replaces
    c10::Storage storage;
    const void* memory;
    std::size_t bytes;
    caffe2::TypeMeta dtype;
    std::int64_t offset;
    std::size_t shape;  // where number of dimensions, sizes and strides begin in `shapes`
    std::string name;

    bool in_place() const {
      return tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl() ==
                 storage.unsafeGetStorageImpl() &&
             storage.data() == memory && storage.nbytes() == bytes;
    }
  };
  std::vector<Added> tensors;
  std::vector<std::int64_t> shapes;
  std::vector<std::vector<std::size_t>> users;  // of a storage: the tensors in it

  const std::string& name_of(std::size_t storage) const {
    return tensors[users[storage].front()].name;
  }
  bool same_shape(const Added& added) const {
    const auto sizes = added.tensor.sizes();
    const auto strides = added.tensor.strides();
    const std::int64_t* const known = &shapes[added.shape];
    return known[0] == added.tensor.dim() && std::equal(sizes.begin(), sizes.end(), known + 1) &&
           std::equal(strides.begin(), strides.end(), known + 1 + sizes.size());
  }
};

// A racing writer is one that did not pass the gate, and whatever is read of what it writes, the
// tensor's old or new storage, is only compared. The old storage is held.
class StorageTable::Watch final : public CaptureWatch {
 public:
  explicit Watch(std::shared_ptr<const Held> held) : held_(std::move(held)) {
    versions_.reserve(held_->tensors.size());
    for (const Held::Added& added : held_->tensors) versions_.push_back(version(added.tensor));
  }

  std::string moved(std::size_t i) const override {
    for (const std::size_t t : held_->users[i]) {
      const Held::Added& added = held_->tensors[t];
      if (!added.in_place()) {
        return added.name + " got other memory without passing the gate";
      }
      const std::uint32_t now = version(added.tensor);
      if (now != versions_[t]) {
        return added.name + " was written without passing the gate (version " +
               std::to_string(versions_[t]) + " -> " + std::to_string(now) + ")";
      }
    }
    return {};
  }

 private:
  static std::uint32_t version(const at::Tensor& tensor) {
    const auto& counter = tensor.unsafeGetTensorImpl()->version_counter();
    return counter.enabled() ? counter.current_version() : 0;  // none in inference tensors
  }

  std::shared_ptr<const Held> held_;
  std::vector<std::uint32_t> versions_;  // by tensor
};

StorageTable::StorageTable() : held_(std::make_shared<Held>()) {}
StorageTable::~StorageTable() = default;
StorageTable::StorageTable(StorageTable&&) noexcept = default;
StorageTable& StorageTable::operator=(StorageTable&&) noexcept = default;

void StorageTable::group_from(std::size_t first) {
  for (std::size_t i = first; i < storages_.size(); ++i) {
    storages_[i].group = static_cast<std::uint32_t>(first) + 1;
  }
}

StorageTable::Place StorageTable::place_of(const at::Tensor& tensor, Mutation mutation,
                                           const std::string& name) {
  const auto bytes = storage_bytes(tensor);
  const void* const key = tensor.storage().unsafeGetStorageImpl();
  if (const auto known = known_.find(key); known != known_.end()) return known->second;
  Place place{storages_.size(), 0};
  auto next = by_address_.lower_bound(bytes.data() + bytes.size());
  if (!bytes.empty() &&
      next != by_address_.begin()) {  // the last storage that begins before its end
    const auto other = storages_[(--next)->second].bytes;
    const bool inside =
        other.data() <= bytes.data() && bytes.data() + bytes.size() <= other.data() + other.size();
    if (inside) {
      place = {next->second, static_cast<std::size_t>(bytes.data() - other.data())};
    } else if (bytes.data() < other.data() + other.size()) {
      throw Error(name + " overlaps the memory of " + held_->name_of(next->second) +
                  " in part: make one a view of the other");
    }
  }
  if (place.storage == storages_.size()) {
    storages_.push_back({bytes, mutation, dtype_of(tensor)});
    storages_.back().on_device = !tensor.is_cpu();
    held_->users.emplace_back();
    if (!bytes.empty()) by_address_.emplace(bytes.data(), place.storage);
  }
  known_.emplace(key, place);
  return place;
}

pickle::Value StorageTable::add(const at::Tensor& tensor, Mutation mutation, std::string name) {
  const DType dtype = dtype_of(tensor);
  const std::size_t size = dtype_size(dtype);
  const Place place = place_of(tensor, mutation, name);
  CapturedStorage& storage = storages_[place.storage];
  if (mutation == Mutation::kAnyTime) storage.mutation = mutation;
  Held& held = *held_;
  auto& users = held.users[place.storage];
  const bool same_type =
      users.empty() || held.tensors[users.front()].tensor.dtype() == tensor.dtype();
  if (!same_type || place.first % size != 0) {
    throw Error(name + " and " + held.name_of(place.storage) +
                " view the same memory as different types: a .pth file cannot say that");
  }

  pickle::TensorRef leaf;
  leaf.storage_key = std::to_string(place.storage);
  leaf.dtype = dtype;
  leaf.storage_numel = static_cast<std::int64_t>(storage.bytes.size() / size);
  leaf.offset = static_cast<std::int64_t>(place.first / size) + tensor.storage_offset();
  leaf.sizes.assign(tensor.sizes().begin(), tensor.sizes().end());
  leaf.strides.assign(tensor.strides().begin(), tensor.strides().end());

  users.push_back(held.tensors.size());
  const auto bytes = storage_bytes(tensor);
  held.tensors.push_back({tensor, tensor.storage(), bytes.data(), bytes.size(), tensor.dtype(),
                          tensor.storage_offset(), held.shapes.size(), std::move(name)});
  held.shapes.push_back(tensor.dim());
  held.shapes.insert(held.shapes.end(), leaf.sizes.begin(), leaf.sizes.end());
  held.shapes.insert(held.shapes.end(), leaf.strides.begin(), leaf.strides.end());
  return pickle::make_tensor(leaf);
}

std::shared_ptr<const void> StorageTable::handles() const { return held_; }

bool StorageTable::current() const {
  const Held& held = *held_;
  return std::all_of(held.tensors.begin(), held.tensors.end(), [&](const Held::Added& added) {
    return added.in_place() && added.tensor.dtype() == added.dtype &&
           added.tensor.storage_offset() == added.offset && held.same_shape(added);
  });
}

std::shared_ptr<const CaptureWatch> StorageTable::watch() const {
  return std::make_shared<Watch>(held_);
}

}  // namespace millrace
