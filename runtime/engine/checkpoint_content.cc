#include "millrace/runtime/engine/checkpoint_content.h"

#include <utility>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/engine/content_tensors.h"

namespace millrace {
namespace {

bool is_row_major(const pickle::TensorRef& tensor) {
  std::int64_t step = 1;
  for (std::size_t d = tensor.sizes.size(); d-- > 0;) {
    if (tensor.sizes[d] != 1 && tensor.strides[d] != step) return false;
    step *= tensor.sizes[d];
  }
  return true;
}

}  // namespace

CheckpointContent::CheckpointContent() : root_(pickle::Value::dict()) {}
CheckpointContent::CheckpointContent(CheckpointFile& file)
    : root_(std::move(file.root())), file_(&file) {}
CheckpointContent::~CheckpointContent() = default;

pickle::Value& CheckpointContent::root() {
  while (!shared_.empty()) unshare(*shared_.begin());
  return root_;
}

pickle::Value* CheckpointContent::find(std::string_view key) {
  unshare(key);
  return root_.find(pickle::Value(key));
}

void CheckpointContent::set(std::string_view key, pickle::Value value) {
  forget_shared(key);
  root_.set(pickle::Value(key), std::move(value));
}

bool CheckpointContent::remove(std::string_view key) {
  forget_shared(key);
  return root_.erase(pickle::Value(key));
}

void CheckpointContent::forget_shared(std::string_view key) {
  const auto found = shared_.find(key);
  if (found == shared_.end()) return;
  shared_.erase(found);
  complete_ = false;
}

void CheckpointContent::unshare(std::string_view key) {
  if (!shared_.contains(key)) return;
  if (pickle::Value* const tree = root_.find(pickle::Value(key))) {
    *tree = pickle::copy_around_tensors(*tree);
  }
  forget_shared(key);
}

pickle::Value CheckpointContent::tensor(const TensorView& view, Mutation mutation,
                                        std::shared_ptr<const void> keep_alive,
                                        std::function<std::string()> moved, bool on_device) {
  if (!tensors_) throw Error("tensors are added in BeforeSaveCheckpoint, and nowhere else");
  return tensors_->add(view, mutation, std::move(keep_alive), std::move(moved), on_device);
}

std::span<const std::byte> CheckpointContent::bytes_of(const pickle::Value& leaf) const {
  const auto tensor = pickle::as_tensor(leaf);
  if (!tensor) throw CheckpointError(file().path(), "is asked for the bytes of what is no tensor");
  if (!is_row_major(*tensor)) {
    throw CheckpointError(file().path(), "is asked for the bytes of a strided tensor");
  }
  const std::size_t size = dtype_size(tensor->dtype);
  return file().storage(*tensor).subspan(static_cast<std::size_t>(tensor->offset) * size,
                                         static_cast<std::size_t>(tensor->numel()) * size);
}

const CheckpointFile& CheckpointContent::file() const {
  if (file_ == nullptr) throw Error("only a loaded checkpoint has a file: AfterLoadCheckpoint");
  return *file_;
}

void CheckpointContent::begin(CapturedState& state) {
  tensors_ = std::make_unique<ContentTensors>(state);
}

void CheckpointContent::share(std::string_view key, pickle::Value tree) {
  root_.set(pickle::Value(key), std::move(tree));
  shared_.emplace(key);
}

void CheckpointContent::detach() {
  pickle::Value copy = pickle::Value::dict();
  std::vector<const pickle::Value*> trees;  // that may name storages in a new way
  for (const auto& [key, value] : *root_.as_mapping()) {
    const std::string* const name = key.as_string();
    const bool shared = name != nullptr && shared_.contains(*name);
    copy.set(key, shared ? value : pickle::copy_around_tensors(value));
    if (!shared || !complete_) trees.push_back(&value);
  }
  if (tensors_) names_ = tensors_->settle(trees, complete_);
  root_ = std::move(copy);
  shared_.clear();
  tensors_.reset();
}

}  // namespace millrace
