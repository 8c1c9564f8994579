#include "millrace/runtime/engine/content_tensors.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

#include "millrace/io/pickle_walk.h"
#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

constexpr std::size_t kNone = SIZE_MAX;

// Keys of one checkpoint mean nothing in another: a leaf that a hook kept shall not name a storage
// by accident.
std::string fresh_prefix() {
  return "added-" + std::to_string(std::chrono::steady_clock::now().time_since_epoch().count()) +
         "-";
}

const std::byte* end_of(std::span<const std::byte> bytes) { return bytes.data() + bytes.size(); }

// Storages and their watch after hooks added and dropped some.
class ContentWatch final : public CaptureWatch {
 public:
  struct Storage {
    std::size_t captured = kNone;              // its index for the captured state's watch
    std::vector<ContentTensors::Moved> moved;  // of the tensors that hooks added to it
  };
  ContentWatch(std::shared_ptr<const CaptureWatch> captured, std::vector<Storage> storages)
      : captured_(std::move(captured)), storages_(std::move(storages)) {}

  std::string moved(std::size_t i) const override {
    const Storage& storage = storages_[i];
    if (captured_ && storage.captured != kNone) {
      if (std::string text = captured_->moved(storage.captured); !text.empty()) return text;
    }
    for (const auto& moved : storage.moved) {
      if (std::string text = moved(); !text.empty()) return text;
    }
    return {};
  }

 private:
  std::shared_ptr<const CaptureWatch> captured_;
  std::vector<Storage> storages_;
};

std::vector<std::int64_t> row_major(std::span<const std::int64_t> sizes) {
  std::vector<std::int64_t> strides(sizes.size());
  std::int64_t step = 1;
  for (std::size_t d = sizes.size(); d-- > 0;) {
    strides[d] = step;
    step *= std::max<std::int64_t>(sizes[d], 1);
  }
  return strides;
}

}  // namespace

ContentTensors::ContentTensors(CapturedState& state)
    : state_(state), captured_(state.storages.size()), prefix_(fresh_prefix()) {}

CapturedStorage& ContentTensors::storage(std::size_t i) {
  return i < captured_ ? state_.storages[i] : own_[i - captured_];
}

std::size_t ContentTensors::touching(std::span<const std::byte> bytes) {
  if (bytes.empty()) return kNone;
  const auto address = [this](std::size_t i) { return state_.storages[i].bytes.data(); };
  if (by_address_.empty()) {
    for (std::size_t i = 0; i < captured_; ++i) {
      if (!state_.storages[i].bytes.empty()) by_address_.push_back(i);
    }
    std::sort(by_address_.begin(), by_address_.end(),
              [&](std::size_t a, std::size_t b) { return address(a) < address(b); });
  }
  const auto touches = [&](std::size_t i) { return bytes.data() < end_of(storage(i).bytes); };
  const auto captured =
      std::lower_bound(by_address_.begin(), by_address_.end(), end_of(bytes),
                       [&](std::size_t i, const std::byte* end) { return address(i) < end; });
  if (captured != by_address_.begin() && touches(captured[-1])) return captured[-1];
  auto own = own_by_address_.lower_bound(end_of(bytes));
  if (own != own_by_address_.begin() && touches((--own)->second)) return own->second;
  return kNone;
}

pickle::Value ContentTensors::add(const TensorView& view, Mutation mutation,
                                  std::shared_ptr<const void> keep_alive, Moved moved,
                                  bool on_device) {
  const std::size_t size = dtype_size(view.dtype);
  if (view.bytes.size() != static_cast<std::size_t>(view.numel()) * size) {
    throw Error("a checkpoint's tensor of " + std::to_string(view.numel()) + " elements of " +
                std::string(dtype_name(view.dtype)) + " has " + std::to_string(view.bytes.size()) +
                " bytes");
  }
  std::span<const std::byte> bytes = view.bytes;
  std::size_t place = touching(bytes);
  std::size_t first = 0;
  if (place != kNone) {
    const CapturedStorage& other = storage(place);
    first = static_cast<std::size_t>(bytes.data() - other.bytes.data());
    const bool inside = bytes.data() >= other.bytes.data() && end_of(bytes) <= end_of(other.bytes);
    if (!inside || other.dtype != view.dtype || first % size != 0) {
      if (on_device) {
        throw Error(
            "a checkpoint's tensor shares device memory with another one in part, or as "
            "another type: add a clone of it");
      }
      // The file cannot say that the two share memory, and staging copies no byte twice.
      auto copy = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
      bytes = *copy;
      keep_alive = std::move(copy);
      mutation = Mutation::kBehindGate;
      moved = {};
      place = kNone;
    }
  }
  if (place == kNone) {
    place = captured_ + own_.size();
    first = 0;
    own_.push_back({bytes, mutation, view.dtype});
    own_.back().on_device = on_device;
    kept_.push_back(std::move(keep_alive));
    if (!bytes.empty()) own_by_address_.emplace(bytes.data(), place);
  } else if (mutation == Mutation::kAnyTime) {
    storage(place).mutation = mutation;
  }
  pickle::TensorRef leaf;
  leaf.storage_key = prefix_ + std::to_string(added_.size());
  leaf.dtype = view.dtype;
  leaf.storage_numel = static_cast<std::int64_t>(storage(place).bytes.size() / size);
  leaf.offset = static_cast<std::int64_t>(first / size);
  leaf.sizes.assign(view.sizes.begin(), view.sizes.end());
  leaf.strides = row_major(view.sizes);
  added_.push_back({place, std::move(moved)});
  return pickle::make_tensor(leaf);
}

std::vector<bool> ContentTensors::used_in(const std::vector<const pickle::Value*>& trees) {
  std::vector<bool> used(captured_ + own_.size());
  const auto use = [&](const pickle::Value& value) {
    const auto leaf = pickle::as_storage(value);
    if (!leaf) return;
    const bool own = leaf->key.starts_with(prefix_);
    const char* const digits = leaf->key.data() + (own ? prefix_.size() : 0);
    const char* const end = leaf->key.data() + leaf->key.size();
    std::size_t number = 0;
    const auto read = std::from_chars(digits, end, number);
    bool known = read.ec == std::errc() && read.ptr == end;
    if (known && own) {
      known = number < added_.size();
      if (known) number = added_[number].storage;
    } else {
      known = known && number < captured_;
    }
    const std::size_t size = leaf->dtype ? dtype_size(*leaf->dtype) : 1;
    if (!known || static_cast<std::size_t>(leaf->numel) > storage(number).bytes.size() / size) {
      throw Error("a tensor in the checkpoint (storage '" + leaf->key +
                  "') belongs to another checkpoint: make its leaf anew for every save");
    }
    used[number] = true;
  };
  for (const pickle::Value* tree : trees) pickle::walk(*tree, use);
  return used;
}

pickle::StorageNames ContentTensors::settle(const std::vector<const pickle::Value*>& trees,
                                            bool keep_captured) {
  std::vector<bool> used = used_in(trees);
  if (keep_captured) std::fill_n(used.begin(), captured_, true);
  std::vector<std::size_t> number(used.size());
  std::size_t next = 0;
  for (std::size_t i = 0; i < used.size(); ++i) number[i] = used[i] ? next++ : kNone;

  pickle::StorageNames names;
  for (std::size_t i = 0; i < captured_; ++i) {
    if (used[i] && number[i] != i) names[std::to_string(i)] = std::to_string(number[i]);
  }
  for (std::size_t n = 0; n < added_.size(); ++n) {
    const std::size_t place = number[added_[n].storage];
    if (place != kNone) names[prefix_ + std::to_string(n)] = std::to_string(place);
  }
  if (next != captured_ || !added_.empty()) give_to_state(number, next);
  return names;
}

void ContentTensors::give_to_state(const std::vector<std::size_t>& number, std::size_t count) {
  std::vector<CapturedStorage> storages(count);
  std::vector<ContentWatch::Storage> watched(count);
  for (std::size_t i = 0; i < number.size(); ++i) {
    if (number[i] == kNone) continue;
    storages[number[i]] = storage(i);
    if (i < captured_) watched[number[i]].captured = i;
  }
  for (Added& added : added_) {
    const std::size_t place = number[added.storage];
    if (place != kNone && added.moved) watched[place].moved.push_back(std::move(added.moved));
  }
  state_.storages = std::move(storages);
  state_.watch = std::make_shared<ContentWatch>(std::move(state_.watch), std::move(watched));
  kept_.push_back(std::move(state_.handles));
  state_.handles = std::make_shared<std::vector<std::shared_ptr<const void>>>(std::move(kept_));
}

}  // namespace millrace
